"""How ``lr`` is made of ``hr``: MATLAB's bicubic, or what a photo goes through."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_hub.metrics import round_to_8_bits
from sr_hub.resample import downscale_bicubic

Degradation = Callable[[Tensor, int, Sequence[torch.Generator]], Tensor]
"""``(hr (N, 3, H, W) in [0, 1], scale, one CPU generator per image) -> lr (N, 3, H/scale, W/scale)``.

The result is rounded to 8 bits. An image's result depends on its own generator only, not on its batch; on a
GPU, where noise is drawn for the whole batch at once, on the first image's, too.
"""

MARGIN = 4
"""LR pixels to cut off each side after degrading a crop: there a blur still sees the crop's edge."""


def bicubic(hr: Tensor, scale: int, generators: Sequence[torch.Generator]) -> Tensor:
    """MATLAB's ``imresize`` on 8-bit images, rounded after each pass; draws nothing at random."""
    return downscale_bicubic(hr, scale, round_to_8_bits=True)


def photo(hr: Tensor, scale: int, generators: Sequence[torch.Generator]) -> Tensor:
    """Blur, resize, noise and JPEG of random strength and order, drawn anew for each image.

    After Real-ESRGAN (arXiv:2107.10833, section 3) and BSRGAN's shuffling (arXiv:2103.14006), but one round
    and milder. A fifth of the images gets the bicubic degradation alone, so that clean pictures stay clean.

    - blur before shrinking (85 %): anisotropic Gaussian, standard deviations 0.1 to 0.6 LR pixels
    - shrinking: area, bilinear (antialiased) or bicubic
    - noise in LR (70 %): Gaussian up to 20/255 or Poisson up to 20/255 at white, weak mostly; half of it grey
    - JPEG in LR (75 %): quality 30 to 95, chroma 4:2:0; after the noise, or before it (25 %)

    Raises:
        ValueError: If there is not one generator per image.
    """
    return _photographed(hr, scale, generators, rough_share=0)


def rough(hr: Tensor, scale: int, generators: Sequence[torch.Generator]) -> Tensor:
    """`photo`, but for a third of the images with wider ranges, as old and poor pictures need.

    There blur goes up to 1 LR pixel (0.85 in effect, as the kernel ends 7 HR pixels from its middle), noise
    up to 30/255 and JPEG down to a quality of 20.

    Raises:
        ValueError: If there is not one generator per image.
    """
    return _photographed(hr, scale, generators, rough_share=1 / 3)


def _photographed(
    hr: Tensor, scale: int, generators: Sequence[torch.Generator], rough_share: float
) -> Tensor:
    if len(generators) != len(hr):
        raise ValueError(
            f"photo degradations need one generator per image, got {len(generators)} for {len(hr)}"
        )
    draws = moved(torch.stack([torch.rand(12, generator=g) for g in generators]), hr.device)
    height, width = hr.shape[-2] // scale, hr.shape[-1] // scale
    if hr.is_cuda:
        random = torch.Generator(hr.device).manual_seed(generators[0].initial_seed())
        noise = torch.randn(len(hr), 3, height, width, generator=random, device=hr.device)
    else:
        noise = torch.stack([torch.randn(3, height, width, generator=g) for g in generators])

    def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition.view(-1, 1, 1, 1), a, b)

    is_rough = (draws[:, 11] < rough_share).long()
    widest = _constant((0.6 * scale, 1.0 * scale), hr.device)[is_rough]
    loudest = _constant((20 / 255, 30 / 255), hr.device)[is_rough]
    worst = _constant((30.0, 20.0), hr.device)[is_rough]
    blurred = where(draws[:, 1] < 0.85, blur(hr, draws[:, 2:5], widest), hr)
    lr = _shrink(blurred, scale, draws[:, 5])
    noise_last = draws[:, 6] < 0.25

    def noisy(lr: Tensor) -> Tensor:
        return _noisy(lr, noise, draws[:, 7:9], loudest)

    def compressed(lr: Tensor) -> Tensor:
        return _maybe_jpeg(lr, draws[:, 9:11], worst)

    lr = where(noise_last, compressed(lr), noisy(lr))
    lr = where(noise_last, noisy(lr), compressed(lr))
    lr = where(draws[:, 0] < 0.2, downscale_bicubic(hr, scale), lr)
    return round_to_8_bits(lr)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` of the CPU on ``device``, without waiting for what a GPU is still working on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return moved(torch.tensor(values), device)


def blur(hr: Tensor, draws: Tensor, widest: Tensor) -> Tensor:
    """Gaussian blur by one kernel per image: ``draws`` (N, 3) are both deviations and the angle.

    The deviations go from 0.1 to ``widest`` (N,) HR pixels.

    By FFT, which is faster than 225 products a sample.
    """
    radius = 7
    axis = torch.arange(-radius, radius + 1, dtype=hr.dtype, device=hr.device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    sigma = (0.1 + (widest[:, None] - 0.1) * draws[:, :2]).view(-1, 2, 1, 1)
    angle = (torch.pi * draws[:, 2]).view(-1, 1, 1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    kernel = torch.exp(-0.5 * ((along / sigma[:, 0]) ** 2 + (across / sigma[:, 1]) ** 2))
    kernel = kernel / kernel.sum(dim=(1, 2), keepdim=True)  # (N, 15, 15)
    padded = F.pad(hr, (radius,) * 4, mode="replicate")
    height, width = padded.shape[-2:]
    size = (height + -height % 32, width + -width % 32)  # of small factors, which FFT likes
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel, s=size)[:, None]
    # What wraps around falls onto the first rows and columns, which are not of the result.
    return torch.fft.irfft2(spectrum, s=size)[..., 2 * radius : height, 2 * radius : width]


def _shrink(hr: Tensor, scale: int, draw: Tensor) -> Tensor:
    area = F.avg_pool2d(hr, scale)
    bilinear = F.interpolate(hr, scale_factor=1 / scale, mode="bilinear", antialias=True)
    cubic = downscale_bicubic(hr, scale)
    draw = draw.view(-1, 1, 1, 1)
    return torch.where(draw < 0.25, area, torch.where(draw < 0.5, bilinear, cubic)).clamp(0, 1)


def _noisy(lr: Tensor, noise: Tensor, draws: Tensor, loudest: Tensor) -> Tensor:
    kind, strength = draws.view(-1, 2, 1, 1, 1).unbind(1)
    grey = kind < 0.65
    poisson = (kind < 0.45) | (kind > 0.85)
    noise = torch.where(grey, noise[:, :1], noise)
    deviation = loudest.view(-1, 1, 1, 1) * strength**2  # squared: most pictures are nearly clean
    # Poisson noise by its Gaussian approximation: variance in proportion to the brightness.
    deviation = torch.where(
        poisson, deviation * lr.mean(1, keepdim=True).sqrt(), deviation.expand_as(lr[:, :1])
    )
    return torch.where(kind < 0.3, lr, lr + noise * deviation).clamp(0, 1)


def _maybe_jpeg(lr: Tensor, draws: Tensor, worst: Tensor) -> Tensor:
    compressed = jpeg(lr, (worst + (95 - worst) * draws[:, 1]).floor())
    return torch.where(draws[:, 0].view(-1, 1, 1, 1) < 0.25, lr, compressed)


# ITU T.81, annex K, tables K.1 and K.2.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32,
)  # fmt: skip
# JFIF's full-range YCbCr, Cb and Cr around 0.
_TO_YCBCR = (0.299, 0.587, 0.114, -0.168736, -0.331264, 0.5, 0.5, -0.418688, -0.081312)
_TO_RGB = (1.0, 0.0, 1.402, 1.0, -0.344136, -0.714136, 1.0, 1.772, 0.0)


def jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """``image`` after baseline JPEG with 4:2:0 chroma, as libjpeg writes and reads it, batched.

    Args:
        image: ``(N, 3, H, W)`` in [0, 1].
        quality: ``(N,)``, libjpeg's 1 to 100.
    """
    height, width = image.shape[-2:]
    values = (image.clamp(0, 1) * 255).round()
    values = F.pad(values, (0, -width % 16, 0, -height % 16), mode="replicate")
    ycbcr = torch.einsum("dc,nchw->ndhw", _constant(_TO_YCBCR, image.device).view(3, 3), values).round()
    luma = _quantise(ycbcr[:, :1] - 128, _LUMA, quality) + 128
    chroma = _quantise(F.avg_pool2d(ycbcr[:, 1:], 2), _CHROMA, quality)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    ycbcr = torch.cat([luma, chroma], dim=1)
    rgb = torch.einsum("dc,nchw->ndhw", _constant(_TO_RGB, image.device).view(3, 3), ycbcr)
    return rgb[..., :height, :width].round().clamp(0, 255) / 255


def _quantise(plane: Tensor, table: tuple[int, ...], quality: Tensor) -> Tensor:
    """``plane`` (N, C, H, W) with its 8x8 cosine coefficients rounded as at ``quality`` (N,)."""
    k = torch.arange(8, dtype=plane.dtype, device=plane.device)
    basis = torch.cos(torch.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= 2**0.5
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).floor().view(-1, 1, 1)
    steps = ((_constant(table, plane.device).view(8, 8) * percent + 50) / 100).floor().clamp(1, 255)
    n, c, height, width = plane.shape
    blocks = plane.view(n, c, height // 8, 8, width // 8, 8)
    coefficients = torch.einsum("ui,nchiwj,vj->nchwuv", basis, blocks, basis)
    steps = steps.view(n, 1, 1, 1, 8, 8)
    restored = torch.einsum("ui,nchwuv,vj->nchiwj", basis, (coefficients / steps).round() * steps, basis)
    return restored.reshape(plane.shape).clamp(-128, 127).round()


DEGRADATIONS: dict[Literal["bicubic", "photo", "rough"], Degradation] = {
    "bicubic": bicubic,
    "photo": photo,
    "rough": rough,
}
