"""Losses of the two phases: pixel, VGG19 content and adversarial."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

VGG19_CONVOLUTIONS = tuple(
    f"conv{level}_{index}"
    for level, count in enumerate((2, 2, 4, 4, 4), start=1)
    for index in range(1, count + 1)
)
# Channels of VGG19's sixteen convolutions, conv1_1 to conv5_4 (arXiv:1409.1556, table 1, column E).
_CHANNELS = (64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512)
_POOL_BEFORE = ("conv2_1", "conv3_1", "conv4_1", "conv5_1")


def pixel_loss(sr: Tensor, hr: Tensor, kind: str) -> Tensor:
    """Mean ``"l1"``, ``"charbonnier"`` (epsilon 1e-3), ``"mse"`` or ``"log_mse"`` of two equal shapes.

    ``"log_mse"`` is the mean over images of ``log(1 + mse / 1e-5)``. PSNR is a mean of logarithms, too, so in
    it an image of 35 dB counts as much as one of 20, which has thirty times the squared error (NAFNet,
    arXiv:2204.04676, trains by PSNR itself; 1e-5 keeps this one positive and level above 50 dB).
    """
    if sr.shape != hr.shape:
        raise ValueError(f"sr and hr must have one shape, got {tuple(sr.shape)} and {tuple(hr.shape)}")
    if kind == "l1":
        return F.l1_loss(sr, hr)
    if kind == "charbonnier":
        return (F.mse_loss(sr, hr, reduction="none") + 1e-6).sqrt().mean()
    if kind == "mse":
        return F.mse_loss(sr, hr)
    if kind == "log_mse":
        return (F.mse_loss(sr, hr, reduction="none").flatten(1).mean(1) / 1e-5).log1p().mean()
    raise ValueError(f"pixel loss must be l1, charbonnier, mse or log_mse, got {kind!r}")


def parse_content_layers(text: str) -> dict[str, float]:
    """``"conv2_2:0.1,conv5_4:1"`` as ``{"conv2_2": 0.1, "conv5_4": 1.0}``.

    Raises:
        ValueError: If a layer is not one of VGG19's sixteen convolutions or its weight is not a number
            above 0.
    """
    layers: dict[str, float] = {}
    for item in text.split(","):
        name, _, weight = item.strip().partition(":")
        try:
            layers[name] = float(weight)
        except ValueError:
            raise ValueError(f"content_layers must read 'conv5_4:1,...', got {item!r}") from None
        if name not in VGG19_CONVOLUTIONS or not 0 < layers[name] < float("inf"):
            raise ValueError(f"content_layers takes conv1_1 to conv5_4 with weights above 0, got {item!r}")
    return layers


class VGG19Features(nn.Module):
    """VGG19's convolutions with frozen weights; returns chosen layers before their activation.

    Args:
        layers: Names from ``conv1_1`` to ``conv5_4``; the network ends with the deepest of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: list[str]) -> None:
        super().__init__()
        self.layers = set(layers)
        self.names = VGG19_CONVOLUTIONS[: max(VGG19_CONVOLUTIONS.index(name) for name in layers) + 1]
        inputs = (3, *_CHANNELS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, padding=1) for i, o, _ in zip(inputs, _CHANNELS, self.names, strict=False)
        )
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @property
    def least_side(self) -> int:
        """Pixels of height and width that leave one pixel to the deepest layer."""
        return int(2 ** sum(name in _POOL_BEFORE for name in self.names))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Features by layer name: ``(N, 3, H, W)`` in [0, 1] to ``(N, C, H/2^k, W/2^k)`` each."""
        features = {}
        x = (image - self.mean) / self.std
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name in _POOL_BEFORE:
                x = F.max_pool2d(x, 2)
            x = convolution(x)
            if name in self.layers:
                features[name] = x
            x = F.relu(x)
        return features

    def load(self, path: Path) -> None:
        """Reads weights in torchvision's order from a safetensors file.

        The convolutions are the tensors of 3x3 kernels and their biases in the order of the numbers in their
        names (``features.0.weight``, ``features.0.bias``, ``features.2.weight``, ...), whatever the prefix.
        Tensors of a classifier are left out, also where it is written as convolutions of other sizes.

        Raises:
            ValueError: If it is no safetensors file, fewer convolutions are there than needed or one has
                another shape.
        """
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise ValueError(
                f"{path} must be a safetensors file of VGG19's weights, got a broken one: {error}"
            ) from error
        weights = sorted(
            (n for n, value in tensors.items() if n.endswith(".weight") and value.shape[2:] == (3, 3)),
            key=lambda name: [int(part) for part in name.split(".") if part.isdigit()],
        )
        if len(weights) < len(self.names):
            raise ValueError(
                f"{path} must hold VGG19's {len(self.names)} first convolutions, got {len(weights)}"
            )
        for layer, module, name in zip(self.names, self.convolutions, weights, strict=False):
            convolution = cast(nn.Conv2d, module)
            bias = name.removesuffix("weight") + "bias"
            wanted = (convolution.weight.shape, cast(Tensor, convolution.bias).shape)
            if bias not in tensors or (tensors[name].shape, tensors[bias].shape) != wanted:
                raise ValueError(
                    f"{path}: {name} must be VGG19's {layer} with shape {tuple(convolution.weight.shape)} "
                    f"and a bias, got {tuple(tensors[name].shape)}"
                )
            convolution.weight.copy_(tensors[name])
            cast(Tensor, convolution.bias).copy_(tensors[bias])


class ContentLoss(nn.Module):
    """Weighted L1 distance of VGG19 features (SRGAN, arXiv:1609.04802, eq. 5; before activation as in
    ESRGAN, arXiv:1809.00219, section 3.3).

    Each layer is divided by the standard deviation that it has on ``calibrate``'s images, so the weights
    mean the same for any rescaling of VGG19's filters.

    Args:
        weights: Layer names and their weights.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.features = VGG19Features(list(weights))
        self.deviations: dict[str, float] = {}

    @torch.no_grad()
    def calibrate(self, hr: Tensor) -> None:
        """Measures each layer's standard deviation on ``hr`` ``(N, 3, H, W)``."""
        self.deviations = {name: value.float().std().item() for name, value in self.features(hr).items()}

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """The loss of ``sr`` against ``hr``, both ``(N, 3, H, W)`` in [0, 1]; gradients reach ``sr`` only.

        Raises:
            RuntimeError: If ``calibrate`` was not called.
        """
        if not self.deviations:
            raise RuntimeError("call calibrate with HR images before the first loss")
        with torch.no_grad():
            targets = self.features(hr)
        return sum(
            (
                self.weights[name] / self.deviations[name] * F.l1_loss(value.float(), targets[name].float())
                for name, value in self.features(sr).items()
            ),
            start=sr.new_zeros(()),
        )


def grid_loss(sr: Tensor, hr: Tensor, scale: int) -> Tensor:
    """How far ``sr`` has drawn the grid of LR pixels into the picture, or shifted its colours.

    The error of each of the ``scale**2`` sub-pixel places apart, averaged over windows of 8x8 LR pixels, then
    its mean size. True texture has no place of its own on the grid and averages out; a pattern that repeats
    with every LR pixel, as content and adversarial losses leave it in flat areas, does not.

    Args:
        sr: ``(N, 3, H, W)``, H and W multiples of ``scale``.
        hr: The same shape.
        scale: HR pixels per LR pixel.
    """
    places = F.pixel_unshuffle(sr - hr, scale)  # (N, 3*scale^2, H/scale, W/scale)
    window = min(8, *places.shape[-2:])
    return F.avg_pool2d(places, window, stride=max(1, window // 2)).abs().mean()


def adversarial_loss(sr_logits: Tensor) -> Tensor:
    """The generator's part of the non-saturating GAN loss (arXiv:1406.2661, section 3)."""
    return F.softplus(-sr_logits.float()).mean()


def discriminator_loss(hr_logits: Tensor, sr_logits: Tensor) -> Tensor:
    """Binary cross entropy of the discriminator: HR is real, SR is not."""
    return F.softplus(-hr_logits.float()).mean() + F.softplus(sr_logits.float()).mean()


def find_vgg(name: str, token: str | None = None) -> Path:
    """The file of VGG19's weights: ``name`` itself, or ``model.safetensors`` of the Hub repository ``name``.

    Args:
        name: As above.
        token: For a private repository. Default: that of the login.

    Raises:
        FileNotFoundError: If there is neither; the message says what to do.
    """
    if Path(name).is_file():
        return Path(name)
    try:
        return Path(hf_hub_download(name, "model.safetensors", token=token))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"the content loss needs VGG19's weights and {name!r} is neither a safetensors file nor a Hub "
            f"repository that can be reached: name one with --vgg, or train phase 1 alone with "
            f"--adversarial-steps 0"
        ) from error
