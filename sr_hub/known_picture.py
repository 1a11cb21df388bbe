"""A test whose answer is known: a picture shrunk, restored and compared with itself."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from sr_hub.images import ImageError, Picture
from sr_hub.metrics import psnr_y, ssim_y
from sr_hub.pixels import join_alpha, round_to
from sr_hub.resample import downscale_bicubic, upscale_bicubic

LARGEST_SIDE = 2048
"""Pixels a side that take part; of larger pictures their middle."""

_SMALLEST_LR = 16  # pixels a side: what SSIM needs, and a picture that shows anything


@dataclass(frozen=True, eq=False)
class KnownPicture:
    """A picture and what is left of it once shrunk, both 8-bit RGB.

    Attributes:
        hr: The picture, or its middle, its sides multiples of the scale.
        lr: ``hr`` shrunk bicubic, as the field's test sets are.
        scale: HR pixels per LR pixel.
        size: Width and height of the whole picture.
        notices: What reading could not keep and what does not take part, in words for the user.
    """

    hr: Picture
    lr: Picture
    scale: int
    size: tuple[int, int]
    notices: tuple[str, ...]


@dataclass(frozen=True)
class KnownScores:
    """PSNR-Y in dB and SSIM-Y of a restored picture and of bicubic, less ``scale`` pixels at each border."""

    psnr_y: float
    ssim_y: float
    bicubic_psnr_y: float
    bicubic_ssim_y: float


def shrink(picture: Picture, scale: int) -> KnownPicture:
    """The test for a picture of any kind; transparency is laid on white.

    Raises:
        ImageError: If the picture is too small.
    """
    pixels = round_to(np.uint8, join_alpha(picture.pixels))
    height, width = (min(side, LARGEST_SIDE) // scale * scale for side in pixels.shape[:2])
    if min(height, width) < scale * _SMALLEST_LR:
        least = scale * _SMALLEST_LR
        raise ImageError(
            f"the test on a known picture needs at least {least}x{least} pixels, "
            f"got {pixels.shape[1]}x{pixels.shape[0]}"
        )
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels = pixels[top : top + height, left : left + width]
    hr = replace(picture, pixels=np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3))))
    small = downscale_bicubic(_tensor(hr), scale, round_to_8_bits=True)
    samples = small[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
    notices = picture.notices
    if picture.pixels.shape[:2] != (height, width):
        notices = (*notices, f"the middle {width}×{height} pixels take part")
    size = (picture.pixels.shape[1], picture.pixels.shape[0])
    return KnownPicture(hr, replace(picture, pixels=np.ascontiguousarray(samples)), scale, size, notices)


def score(known: KnownPicture, sr: Picture) -> KnownScores:
    """How close ``sr``, a result of ``known.lr`` at the model's own scale, comes to ``known.hr``.

    Raises:
        ValueError: If ``sr`` has another size.
    """
    hr, ours = _tensor(known.hr), _tensor(sr)
    bicubic = upscale_bicubic(_tensor(known.lr), known.scale)
    return KnownScores(
        *(measure(ours, hr, known.scale).item() for measure in (psnr_y, ssim_y)),
        *(measure(bicubic, hr, known.scale).item() for measure in (psnr_y, ssim_y)),
    )


def _tensor(picture: Picture) -> torch.Tensor:
    """``(1, 3, H, W)`` in [0, 1] of an 8-bit RGB picture."""
    return torch.tensor(picture.pixels).permute(2, 0, 1)[None].float() / 255
