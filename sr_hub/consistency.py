"""Results that, shrunk again, give back the input."""

import numpy as np
import torch
from torch import Tensor, nn

from sr_hub.pixels import join_alpha
from sr_hub.resample import downscale_bicubic, upscale_bicubic

_REACH = 5
"""LR pixels that one step reaches: 2 of shrinking and 2 of enlarging by bicubic kernels, and a rest."""

_BAND = 128  # LR rows that are shrunk at once


class Consistent(nn.Module):
    """A generator whose results agree with their input: iterative back-projection (Irani and Peleg, 1991).

    Each step adds what is missing, ``lr`` less the shrunk result, enlarged. Shrinking is bicubic, as MATLAB's
    ``imresize`` does it. A photo that a camera or program shrank in another way is not matched better.

    Args:
        generator: Has ``scale`` and ``receptive_radius``.
        steps: At least 1. Each takes a fraction of the network's time.

    Raises:
        ValueError: If ``steps`` is below 1.
    """

    def __init__(self, generator: nn.Module, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"consistency must be at least 1 step, got {steps}")
        super().__init__()
        self.generator = generator
        self.steps = steps
        self.scale: int = generator.scale  # type: ignore[assignment]  # an int, says the contract above
        self.receptive_radius = int(generator.receptive_radius) + _REACH * steps  # type: ignore[arg-type]

    def forward(self, lr: Tensor) -> Tensor:
        """``lr`` ``(N, 3, H, W)`` to ``(N, 3, scale*H, scale*W)`` in [0, 1]."""
        sr = self.generator(lr).to(torch.float32)
        lr = lr.to(torch.float32)
        for _ in range(self.steps):
            sr = sr.clamp(0, 1)
            sr = sr + upscale_bicubic(lr - downscale_bicubic(sr, self.scale), self.scale)
        return sr.clamp(0, 1)


def share_consistent(lr: Tensor, sr: Tensor, scale: int, tolerance: float = 1 / 255) -> float:
    """The share of the samples of ``lr`` that ``sr``, shrunk and rounded to 8 bits, gives back.

    Args:
        lr: ``(N, C, H, W)`` in [0, 1].
        sr: ``(N, C, scale*H, scale*W)`` in [0, 1].
        scale: HR pixels per LR pixel.
        tolerance: Largest difference that counts as the same.
    """
    return _share_within(downscale_bicubic(sr, scale, round_to_8_bits=True), lr, tolerance)


def _share_within(shrunk: Tensor, lr: Tensor, tolerance: float = 1 / 255) -> float:
    return float(((shrunk - lr).abs() <= tolerance + 1e-6).double().mean())


def given_back(lr: np.ndarray, sr: np.ndarray) -> float | None:
    """`share_consistent` of pictures of any size, some rows at a time; transparency is laid on white.

    Args:
        lr: ``(H, W, C)`` uint8, uint16 or float32 in [0, 1].
        sr: The same dtype and C.

    Returns:
        None where ``sr`` is not a whole number of times as large, the same both ways.
    """
    height, width = lr.shape[:2]
    scale = sr.shape[0] // height
    if scale < 1 or sr.shape[:2] != (scale * height, scale * width):
        return None
    matching = 0.0
    for start in range(0, height, _BAND):
        stop = min(height, start + _BAND)
        top, bottom = max(0, start - _REACH), min(height, stop + _REACH)
        shrunk = downscale_bicubic(_tensor(sr[scale * top : scale * bottom]), scale, round_to_8_bits=True)
        kept = shrunk[:, :, start - top : stop - top]
        matching += _share_within(kept, _tensor(lr[start:stop])) * (stop - start)
    return matching / height


def _tensor(pixels: np.ndarray) -> Tensor:
    """``(1, C, H, W)`` in [0, 1], without alpha."""
    full = 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)
    return torch.from_numpy(join_alpha(pixels).astype(np.float32) / np.float32(full)).permute(2, 0, 1)[None]
