"""The generator: a convolution-only network in LR space, and its place on the Hub."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_hub.fused import add_nearest, leaky_conv, multiplies_exactly
from sr_hub.pretrained import (
    CONFIG_FILE,
    DEFAULT_MODEL,
    FIDELITY_FILE,
    WEIGHTS_FILE,
    find_model,
    read_config,
    read_weights,
)
from sr_hub.pretrained import DEFAULT_FIDELITY as DEFAULT_FIDELITY

_LIMITS = {"scale": (2, 4), "features": (1, 1024), "blocks": (1, 256)}


class GatedBlock(nn.Module):
    """Three convolutions whose output gates itself: ``(x + h) * clamp(h / 4, -0.5, 0.5)``.

    SPAN's parameter-free attention ``(x + h) * (sigmoid(h) - 0.5)`` (arXiv:2311.12770, eq. 3 and 4) with the
    sigmoid's slope and limits, but cheaper on a CPU. No pooling, so tiling stays exact.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.conv3 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inplace = not torch.is_grad_enabled()
        h = leaky_conv(self.conv1, x)
        h = leaky_conv(self.conv2, h)
        h = self.conv3(h)
        gate = F.hardtanh(h, -2, 2)
        if inplace:
            return h.add_(x).mul_(gate).mul_(0.25)
        return (x + h) * gate * 0.25


class SRGenerator(nn.Module, PyTorchModelHubMixin):
    """Enlarges images ``scale`` times. All convolutions run at LR size, then one sub-pixel step.

    Args:
        scale: Output pixels per input pixel, each way: 2, 3 or 4.
        features: Channels of the trunk.
        blocks: Gated blocks of three convolutions.

    Raises:
        ValueError: If ``scale`` is not 2, 3 or 4, or ``features`` or ``blocks`` is below 1.
    """

    def __init__(self, *, scale: int = 4, features: int = 48, blocks: int = 8) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"scale must be 2, 3 or 4, got {scale}")
        if features < 1 or blocks < 1:
            raise ValueError(f"features and blocks must be at least 1, got {features} and {blocks}")
        self.scale = scale
        self.head = nn.Conv2d(3, features, 3, padding=1)
        self.blocks = nn.ModuleList(GatedBlock(features) for _ in range(blocks))
        self.body = nn.Conv2d(features, features, 3, padding=1)
        self.merge = nn.Conv2d(3 * features, features, 1)
        self.tail = nn.Conv2d(features, 3 * scale**2, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                with torch.no_grad():
                    module.weight.mul_(0.7)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.tail.weight.mul_(0.1)  # start near the nearest-neighbour skip

    @property
    def receptive_radius(self) -> int:
        """How far, in LR pixels, an input pixel reaches: one for each 3x3 convolution in a row."""
        return 3 * len(self.blocks) + 3

    def forward(self, lr: Tensor) -> Tensor:
        """``lr`` ``(N, 3, H, W)`` in [0, 1] to ``(N, 3, scale*H, scale*W)``, not clamped, in lr's dtype.

        The convolutions run in the dtype of the weights. With float32 ``lr`` and bf16 weights the skip from
        the input stays in float32: bf16 alone would round the brighter half of an image to 1/256.

        Raises:
            ValueError: If ``lr`` has another shape.
        """
        if lr.ndim != 4 or lr.shape[1] != 3:
            raise ValueError(f"lr must have shape (N, 3, H, W), got {tuple(lr.shape)}")
        # Nearest-neighbour skip: every sub-pixel of the tail starts from its input pixel.
        if multiplies_exactly(lr):
            sub_pixels = add_nearest(self.residual(lr), lr.permute(0, 2, 3, 1))
            n, height, width = sub_pixels.shape[:3]
            rows = sub_pixels.transpose(2, 3).reshape(n, self.scale * height, self.scale * width, 3)
            return rows.permute(0, 3, 1, 2)  # (N, 3, scale*H, scale*W)
        x = self._trunk(lr)  # (N, F, H, W)
        x = lr.repeat_interleave(self.scale**2, dim=1) + self.tail(x)  # (N, 3*scale^2, H, W)
        return F.pixel_shuffle(x, self.scale)  # (N, 3, scale*H, scale*W)

    def residual(self, lr: Tensor) -> Tensor:
        """What the network adds to each input pixel: ``(N, H, W, scale, scale, 3)`` in the weights' dtype.

        The output before the sub-pixel step, in the order of a picture's samples, for callers that finish it
        faster than `forward` can: `add_nearest` makes the sum.
        """
        s = self.scale
        # From colour, row, column to row, column, colour, so that each row of three samples is one piece.
        order = torch.arange(3 * s**2, device=lr.device).view(3, s**2).T.reshape(-1)
        weight = self.tail.weight[order].contiguous(memory_format=torch.channels_last)
        x = F.conv2d(self._trunk(lr), weight, self.tail.bias[order], padding=1)  # type: ignore[index]
        return x.permute(0, 2, 3, 1).unflatten(3, (s, s, 3))

    def _trunk(self, lr: Tensor) -> Tensor:
        """The features that the tail turns into sub-pixels: ``(N, F, H, W)``."""
        shallow = self.head(lr.to(self.head.weight.dtype))
        first = x = self.blocks[0](shallow)
        for block in self.blocks[1:]:
            x = block(x)
        return self.merge(torch.cat([shallow, first, self.body(x)], dim=1))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's loads weights that do not fit, silently
        cls, name: str | Path = DEFAULT_MODEL, *, fidelity: float | None = None, **hub: Any
    ) -> "SRGenerator":
        """A trained generator in eval mode, in float32 on the CPU.

        Args:
            name: A bundled model, a folder that ``save_pretrained`` or training wrote, or a Hub repository
                ``user/name``.
            fidelity: Where the model has two ends, the blend between them: 1.0 is the pixel-loss end (true
                to the input, soft), 0.0 the GAN end (sharp, invents detail). Default: ``DEFAULT_FIDELITY``.
            hub: For repositories, as in ``huggingface_hub.hf_hub_download``: ``revision``, ``token``,
                ``cache_dir``, ``local_files_only``, ``force_download``.

        Raises:
            FileNotFoundError: If there is no such model or it lacks a file.
            ConnectionError: If the Hub cannot be reached and the cache does not hold the model.
            ValueError: If config or weights do not fit, or ``fidelity`` is out of [0, 1] or asked of a model
                with one end.
        """
        if fidelity is not None and not 0 <= fidelity <= 1:
            raise ValueError(f"fidelity must lie in [0, 1], got {fidelity}")
        files = find_model(str(name), **hub)
        if files.fidelity is None and fidelity is not None:
            raise ValueError(f"{name} has one end only (no {FIDELITY_FILE}): fidelity cannot be chosen")
        generator = cls(**read_config(files.config, _LIMITS))
        weights = read_weights(files.weights, generator.state_dict())
        if files.fidelity is not None:
            share = DEFAULT_FIDELITY if fidelity is None else fidelity
            ends = read_weights(files.fidelity, generator.state_dict())
            weights = {key: torch.lerp(weights[key], ends[key], share) for key in weights}
        generator.load_state_dict(weights)
        return generator.eval()

    @property
    def config(self) -> dict[str, int]:
        """The keyword arguments that build this network."""
        return {"scale": self.scale, "features": self.head.out_channels, "blocks": len(self.blocks)}

    def save_pretrained(  # type: ignore[override]  # the mixin's pushes, too, and writes a generic card
        self, folder: str | Path
    ) -> None:
        """Writes config.json, model.safetensors and README.md, the card; makes ``folder`` if missing.

        A fidelity end and a training record of other weights that lie there are removed, as the folder then
        holds this model; a card edited by hand is kept.

        Raises:
            FileExistsError: If ``folder`` holds results that were measured on other weights.
            OSError: If the folder cannot be written.
        """
        from sr_hub.model_card import RESULTS_FOLDER, write_card  # here, as loading a model needs no Jinja
        from sr_hub.training_record import RECORD_FILE

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not _holds(folder / WEIGHTS_FILE, self):
            if any((folder / RESULTS_FOLDER).glob("*.json")):
                raise FileExistsError(
                    f"{folder} must not hold {RESULTS_FOLDER}/ of other weights: save elsewhere"
                )
            for file in (FIDELITY_FILE, RECORD_FILE):
                (folder / file).unlink(missing_ok=True)
        temporary = folder / (CONFIG_FILE + ".tmp")
        temporary.write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        save_weights(self, folder / WEIGHTS_FILE)
        temporary.replace(folder / CONFIG_FILE)
        write_card(folder, keep_edited=True)


def save_weights(generator: SRGenerator, path: Path) -> None:
    """Writes the weights to ``path`` as safetensors, the config in their header, by a temporary file."""
    temporary = path.with_name(path.name + ".tmp")
    tensors = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    save_file(tensors, temporary, metadata={"format": "pt", "config": json.dumps(generator.config)})
    temporary.replace(path)


def _holds(path: Path, generator: SRGenerator) -> bool:
    """Whether the weights file at ``path`` has just the weights of ``generator``."""
    if not path.is_file():
        return False
    try:
        found = read_weights(path, generator.state_dict())
    except ValueError:
        return False
    return all(
        torch.equal(value.float().cpu(), found[name]) for name, value in generator.state_dict().items()
    )
