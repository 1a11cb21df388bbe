"""A picture file enlarged by bicubic and by a generator, to be shown side by side."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sr_hub.generator import SRGenerator
from sr_hub.images import Picture, read_picture, to_pil
from sr_hub.inference import choose_dtype, upscale_picture
from sr_hub.pixels import round_to

LARGEST_SHOWN = 4096
"""HR pixels a side of the previews; of larger results their centre is shown."""

_DTYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What came of one picture.

    Attributes:
        picture: The whole result, for ``sr_hub.encoding.write_picture``.
        bicubic: Preview of bicubic resizing, 8 bits.
        sr: Preview of the result, of the same size and place.
        facts: Sizes as width x height, seconds, device and precision, in one line.
        notices: What could not be kept or shown as it was, in words for the user.
    """

    picture: Picture
    bicubic: Image.Image
    sr: Image.Image
    facts: str
    notices: tuple[str, ...]


def load_generator(model: str, fidelity: float | None = None) -> SRGenerator:
    """Returns ``SRGenerator.from_pretrained(model, fidelity=fidelity)`` on the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return SRGenerator.from_pretrained(model, fidelity=fidelity).to(device)


def compare(
    generator: SRGenerator, path: Path, progress: Callable[[int, int], None] | None = None
) -> Comparison:
    """Enlarges the picture at ``path``.

    Args:
        generator: Does the work, on the device it is on, in the precision ``upscale`` chooses by itself.
        path: An image file.
        progress: Called with the tiles done and the number of tiles.

    Raises:
        ImageError: When the file cannot be read as a picture.
    """
    start = time.perf_counter()
    lr = read_picture(path)
    sr = upscale_picture(generator, lr, progress=progress)
    seconds = time.perf_counter() - start
    bicubic_preview, sr_preview = _previews(lr, sr, generator.scale)
    notices = lr.notices
    if sr_preview.size != sr.pixels.shape[1::-1]:
        notices += (f"only the middle {sr_preview.width}×{sr_preview.height} pixels are shown",)
    return Comparison(sr, bicubic_preview, sr_preview, _facts(generator, lr, sr, seconds), notices)


def _previews(lr: Picture, sr: Picture, scale: int) -> tuple[Image.Image, Image.Image]:
    height, width = lr.pixels.shape[:2]
    rows, columns = (min(side, LARGEST_SHOWN // scale) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    # The box, not a crop: bicubic then sees the pixels around it, as on the whole picture.
    bicubic = _to_8_bits(lr).resize(
        (scale * columns, scale * rows), Image.Resampling.BICUBIC, box=(left, top, left + columns, top + rows)
    )
    shown = sr.pixels[scale * top : scale * (top + rows), scale * left : scale * (left + columns)]
    return bicubic, _to_8_bits(replace(sr, pixels=shown))


def _to_8_bits(picture: Picture) -> Image.Image:
    image = to_pil(replace(picture, pixels=np.ascontiguousarray(round_to(np.uint8, picture.pixels))))
    # The profile makes both sides look as the file does; the rest is of no use in a preview.
    image.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return image


def _facts(generator: SRGenerator, lr: Picture, sr: Picture, seconds: float) -> str:
    sizes = [f"{picture.pixels.shape[1]}×{picture.pixels.shape[0]}" for picture in (lr, sr)]
    device = next(generator.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    precision = _DTYPE_NAMES[choose_dtype(device, "auto", eight_bit=lr.pixels.dtype == np.uint8)]
    return f"{sizes[0]} → {sizes[1]} pixels · {seconds:.2f} s · {name}, {precision}"
