"""Bicubic resizing equal to MATLAB's ``imresize``, on float tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _mirror(image: Tensor, pad: int) -> Tensor:
    """``image`` with ``pad`` pixels mirrored on each side, the edge pixel repeated, as ``imresize`` does."""

    def indices(size: int) -> Tensor:
        positions = torch.arange(-pad, size + pad, device=image.device) % (2 * size)
        return torch.where(positions < size, positions, 2 * size - 1 - positions)

    return image[..., indices(image.shape[-2]), :][..., indices(image.shape[-1])]


def _check(image: Tensor, name: str) -> None:
    if image.ndim != 4 or not image.is_floating_point():
        raise ValueError(
            f"{name} must be a float tensor of shape (N, C, H, W), got {image.dtype} {tuple(image.shape)}"
        )


def _bicubic(image: Tensor, height: int, width: int) -> Tensor:
    # antialias=True selects the a = -0.5 kernel of MATLAB and Pillow; without it torch uses a = -0.75.
    return F.interpolate(image, size=(height, width), mode="bicubic", antialias=True)


def downscale_bicubic(hr: Tensor, scale: int, *, round_to_8_bits: bool = False) -> Tensor:
    """``hr`` shrunk ``scale`` times, equal to MATLAB ``imresize(hr, 1/scale)``.

    Args:
        hr: ``(N, C, H, W)``, H and W multiples of ``scale``.
        scale: Whole number, 1 or more.
        round_to_8_bits: Clamp to [0, 1] and round to 1/255 after the pass over rows and again after the
            pass over columns, as ``imresize`` does with uint8 images. The published LR sets are made so.

    Returns:
        ``(N, C, H/scale, W/scale)``. Differentiable where nothing is rounded.

    Raises:
        ValueError: If the shape is not four-dimensional or H, W are not multiples of ``scale``.
    """
    _check(hr, "hr")
    height, width = hr.shape[-2:]
    if height % scale or width % scale or not height or not width:
        raise ValueError(f"hr sides must be multiples of the scale {scale}, got {height}x{width}")
    pad = 2 * scale
    rows = _bicubic(_mirror(hr, pad), height // scale + 4, width + 2 * pad)
    if round_to_8_bits:
        rows = _round(rows)
    lr = _bicubic(rows, height // scale + 4, width // scale + 4)[..., 2:-2, 2:-2]
    return _round(lr) if round_to_8_bits else lr


def upscale_bicubic(lr: Tensor, scale: int) -> Tensor:
    """``lr`` enlarged ``scale`` times, equal to MATLAB ``imresize(lr, scale)``: the baseline of every score.

    Args:
        lr: ``(N, C, H, W)``.
        scale: Whole number, 1 or more.

    Returns:
        ``(N, C, scale*H, scale*W)``, not clamped: bicubic overshoots at edges.
    """
    _check(lr, "lr")
    height, width = lr.shape[-2:]
    pad = 2 * scale
    padded = _mirror(lr, pad)
    sr = _bicubic(padded, (height + 2 * pad) * scale, (width + 2 * pad) * scale)
    margin = pad * scale
    return sr[..., margin:-margin, margin:-margin]


def _round(image: Tensor) -> Tensor:
    return image.clamp(0, 1).mul(255).round().div(255)
