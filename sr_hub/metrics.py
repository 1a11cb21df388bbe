"""Image metrics in the conventions of the super-resolution literature: PSNR-Y, SSIM-Y and LPIPS.

Every metric first clamps and rounds both images to 8 bits, because that is what a saved picture holds.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# MATLAB rgb2ycbcr, 16-235: Y of black is 16, of white 235.
_Y_WEIGHTS = (65.481, 128.553, 24.966)
_Y_OFFSET = 16.0
_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


def round_to_8_bits(image: Tensor) -> Tensor:
    """Returns ``image`` clamped to [0, 1] and rounded to multiples of 1/255, as a saved file holds it."""
    return image.clamp(0, 1).mul(255).round().div(255)


def luma(image: Tensor) -> Tensor:
    """Returns Y of MATLAB's ``rgb2ycbcr`` in [16, 235], unrounded, for RGB ``(N, 3, H, W)`` in [0, 1].

    Returns:
        ``(N, 1, H, W)`` in the dtype of ``image``.
    """
    weights = torch.tensor(_Y_WEIGHTS, dtype=image.dtype, device=image.device).view(1, 3, 1, 1)
    return (image * weights).sum(dim=1, keepdim=True) + _Y_OFFSET


def psnr_y(sr: Tensor, hr: Tensor, border: int) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image on the Y channel, in dB; infinite when equal.

    Computed in float64 on the CPU, so that every device gives the same number.

    Args:
        sr: ``(N, 3, H, W)`` in [0, 1]; clamped and rounded to 8 bits here.
        hr: The same shape.
        border: Pixels cut from each side before comparing; papers use ``scale``.

    Returns:
        ``(N,)`` float64 on the CPU.

    Raises:
        ValueError: When shapes differ or the border leaves nothing.
    """
    sr_y, hr_y = _luma_pair(sr, hr, border, smallest=1)
    mean_squared_error = (sr_y - hr_y).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255.0**2 / mean_squared_error)


def ssim_y(sr: Tensor, hr: Tensor, border: int) -> Tensor:
    """Returns the structural similarity of each image on the Y channel, at most 1.

    As Wang et al. 2004 and the papers of this field: 11x11 Gaussian of sigma 1.5, valid region only, no
    pooling, population covariance, L = 255. Computed in float64 on the CPU.

    Args:
        sr: ``(N, 3, H, W)`` in [0, 1]; clamped and rounded to 8 bits here.
        hr: The same shape.
        border: Pixels cut from each side before comparing; papers use ``scale``.

    Returns:
        ``(N,)`` float64 on the CPU.

    Raises:
        ValueError: When shapes differ or less than 11x11 pixels are left inside the border.
    """
    sr_y, hr_y = _luma_pair(sr, hr, border, smallest=_SSIM_WINDOW)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_sr, mean_hr = _gaussian_mean(sr_y), _gaussian_mean(hr_y)
    variance_sr = _gaussian_mean(sr_y * sr_y) - mean_sr * mean_sr
    variance_hr = _gaussian_mean(hr_y * hr_y) - mean_hr * mean_hr
    covariance = _gaussian_mean(sr_y * hr_y) - mean_sr * mean_hr
    likeness = (2 * mean_sr * mean_hr + c1) * (2 * covariance + c2)
    energy = (mean_sr.square() + mean_hr.square() + c1) * (variance_sr + variance_hr + c2)
    return (likeness / energy).mean(dim=(1, 2, 3))


def _luma_pair(sr: Tensor, hr: Tensor, border: int, smallest: int) -> tuple[Tensor, Tensor]:
    _check_pair(sr, hr)
    height, width = sr.shape[-2:]
    if border < 0:
        raise ValueError(f"border must be at least 0 pixels, got {border}")
    if min(height, width) - 2 * border < smallest:
        raise ValueError(
            f"a border of {border} pixels must leave at least {smallest}x{smallest} pixels of the "
            f"images, which are {height}x{width} (height x width)"
        )
    inside = (..., slice(border, height - border), slice(border, width - border))
    sr_y, hr_y = (luma(round_to_8_bits(image.detach().cpu().double()[inside])) for image in (sr, hr))
    return sr_y, hr_y


def _check_pair(sr: Tensor, hr: Tensor) -> None:
    if sr.ndim != 4 or sr.shape[1] != 3:
        raise ValueError(f"sr must have shape (N, 3, H, W), got {tuple(sr.shape)}")
    if sr.shape != hr.shape:
        raise ValueError(f"sr and hr must have one shape, got {tuple(sr.shape)} and {tuple(hr.shape)}")


def _gaussian_mean(image: Tensor) -> Tensor:
    """Returns the Gaussian-weighted mean around each pixel of the valid region, ``(N, 1, H-10, W-10)``."""
    offsets = torch.arange(_SSIM_WINDOW, dtype=image.dtype) - _SSIM_WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * _SSIM_SIGMA**2))
    weights = weights / weights.sum()
    rows = F.conv2d(image, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1))


class LPIPS(nn.Module):
    """Learned perceptual distance, version 0.1 on AlexNet (arXiv:1801.03924); 0 for equal, lower is better.

    Called, a measuring instrument without gradients; ``distance`` is for training. Make it with
    ``LPIPS.from_file``.
    """

    mean: Tensor
    std: Tensor
    # AlexNet's five feature maps, after each ReLU: index in `features`, channels.
    _taps = ((1, 64), (4, 192), (7, 384), (9, 256), (11, 256))
    least_side = 31
    """Pixels of height and width; anything less vanishes in AlexNet's two pools."""

    def __init__(self) -> None:
        super().__init__()
        # Indices and key names are torchvision's AlexNet, up to its last ReLU.
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        for index, (_, channels) in enumerate(self._taps):
            self.add_module(f"lin{index}", nn.Conv2d(channels, 1, 1, bias=False))
        # LPIPS's own normalisation of RGB in [-1, 1]; not part of the weights file.
        self.register_buffer(
            "mean", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_file(cls, path: str | Path) -> "LPIPS":
        """Returns LPIPS with the weights of a safetensors file, in eval mode, float32, on the CPU.

        Args:
            path: Keys ``features.N.weight``, ``features.N.bias`` (torchvision's AlexNet) and
                ``lin0.weight`` to ``lin4.weight``; every one must be there and no other.

        Raises:
            FileNotFoundError: When there is no such file.
            ValueError: When the file is no safetensors file, or a key is missing, unexpected or misshapen.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no LPIPS weights file at {path}")
        model = cls()
        try:
            weights = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{path} does not hold LPIPS (AlexNet) weights: {error}") from error
        return model.eval().requires_grad_(False)

    @torch.inference_mode()
    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Returns the distance of each pair, ``(N,)``; the whole image counts, no border is cut.

        Args:
            sr: RGB ``(N, 3, H, W)`` in [0, 1], at least 31x31; clamped and rounded to 8 bits here.
            hr: The same shape.

        Raises:
            ValueError: When shapes differ or the images are too small.
        """
        return self.distance(round_to_8_bits(sr.float()), round_to_8_bits(hr.float()))

    def distance(self, sr: Tensor, hr: Tensor) -> Tensor:
        """As calling it, but of the values as they are, and with gradients, which reach both."""
        _check_pair(sr, hr)
        if min(sr.shape[-2:]) < self.least_side:
            raise ValueError(
                f"LPIPS needs at least {self.least_side}x{self.least_side} pixels, got {tuple(sr.shape)}"
            )
        distance = torch.zeros(sr.shape[0], device=sr.device)
        x, y = ((image * 2 - 1 - self.mean) / self.std for image in (sr, hr))
        taps = {layer: self.get_submodule(f"lin{index}") for index, (layer, _) in enumerate(self._taps)}
        for layer, module in enumerate(self.features):
            x, y = module(x), module(y)
            if layer in taps:
                difference = (_unit_channels(x) - _unit_channels(y)).square()
                distance = distance + taps[layer](difference).mean(dim=(1, 2, 3))
        return distance


def _unit_channels(features: Tensor) -> Tensor:
    """Returns ``features`` in float32, scaled to length 1 along the channels at every position."""
    features = features.float()
    # Below the root 1e-20, lost beside any feature: the root's gradient at 0 is infinite.
    return features / ((features.square().sum(dim=1, keepdim=True) + 1e-20).sqrt() + 1e-10)
