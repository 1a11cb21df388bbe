"""A picture enlarged by bicubic and by a generator, as images of one size to be shown side by side."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from sr_hub.images import Picture, to_pil
from sr_hub.inference import upscale_picture
from sr_hub.pixels import round_to

LARGEST_SHOWN = 3072
"""Pixels a side of what is shown; larger results are shown shrunk."""

PREVIEW_SIDE = 320
"""LR pixels a side of the middle that is shown while the whole is under way."""

PREVIEWED_PIXELS = 700_000
"""LR pixels from which a picture gets a preview: the whole would take more than a second or two."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two images of one size and place.

    Attributes:
        bicubic: By bicubic resizing, 8 bits.
        sr: The result, 8 bits.
        full_size: Width and height of the result; the images are smaller where that is above `LARGEST_SHOWN`.
    """

    bicubic: Image.Image
    sr: Image.Image
    full_size: tuple[int, int]

    @property
    def notice(self) -> str | None:
        """What the images do not show, in words for the user."""
        if self.sr.size == self.full_size:
            return None
        return f"shown at {self.sr.width / self.full_size[0]:.0%}; loupe and download have every pixel"


def compare(lr: Picture, sr: Picture) -> Comparison:
    """Both sides of a result ``sr`` of ``lr``, of any size."""
    full = (sr.pixels.shape[1], sr.pixels.shape[0])
    share = min(1.0, LARGEST_SHOWN / max(full))
    size = (max(1, round(full[0] * share)), max(1, round(full[1] * share)))
    ours = to_8_bits(sr)
    if size != full:
        ours = ours.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return Comparison(to_8_bits(lr).resize(size, Image.Resampling.BICUBIC), ours, full)


def preview(generator: torch.nn.Module, lr: Picture) -> Comparison | None:
    """The middle of a large picture, which is enlarged in a moment; None for a picture that is not large."""
    if lr.pixels.shape[0] * lr.pixels.shape[1] < PREVIEWED_PIXELS:
        return None
    middle, _ = middle_of(lr)
    return compare(middle, upscale_picture(generator, middle))


def middle_of(lr: Picture) -> tuple[Picture, tuple[int, int]]:
    """The middle `PREVIEW_SIDE` pixels a side of a picture, and the row and column where it starts."""
    top, left = (max(0, side - PREVIEW_SIDE) // 2 for side in lr.pixels.shape[:2])
    pixels = lr.pixels[top : top + PREVIEW_SIDE, left : left + PREVIEW_SIDE]
    return replace(lr, pixels=np.ascontiguousarray(pixels)), (top, left)


def to_8_bits(picture: Picture) -> Image.Image:
    """A PIL image of mode L, LA, RGB or RGBA with the picture's colour profile."""
    image = to_pil(replace(picture, pixels=np.ascontiguousarray(round_to(np.uint8, picture.pixels))))
    # The profile makes both sides look as the file does; the rest is of no use in a preview.
    image.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return image
