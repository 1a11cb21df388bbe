"""Training settings: the one source of the command line, of its help and of ``train_config.json``."""

import argparse
import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sr_hub.licenses import check_license


def option(default: Any, help: str) -> Any:
    """A dataclass field with its one-line help, units included."""
    return field(default=default, metadata={"help": help})


_AT_LEAST_ONE = (
    "features", "blocks", "batch_size", "patch_size", "adversarial_batch_size", "adversarial_patch_size",
    "discriminator_features", "checkpoint_every", "log_every",
)  # fmt: skip
_LEARNING_RATES = ("learning_rate", "adversarial_learning_rate", "discriminator_learning_rate")
_NOT_NEGATIVE = (
    "pixel_steps", "adversarial_steps", "warmup_steps", "validate_every", "max_minutes", "budget_minutes",
    "clip_gradient", "expansion", "threads", "seed",
    "pixel_weight", "grid_weight", "content_weight", "lpips_weight", "adversarial_weight",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """What one training run does. Every field is a command line flag (``batch_size`` is ``--batch-size``)."""

    data: str = option("data", "folder tree of training images; anything Pillow opens")
    out: str = option("runs/model", "run folder: checkpoint, metrics, sheets and the finished model")
    validation: str | None = option(
        None, "folder of HR images, or with HR/ and LRx4/ inside; default: 4 images of --data left out"
    )
    degradation: Literal["bicubic", "photo", "rough"] = option(
        "bicubic",
        "how lr is made of hr: MATLAB's bicubic; blur, noise and JPEG as photos have; or more of it",
    )
    init: str | None = option(None, "start from these weights: bundled name, model folder or Hub repository")
    init_fidelity: float | None = option(
        None, "which blend of a family --init takes, 0 (detail) to 1 (pixel loss)"
    )
    seed: int = option(0, "random seed of weights, crops and degradations")
    shrink: float = option(
        1.0, "shrink hr crops by a random factor from 1 to this, so that a pixel shows more of the world"
    )
    recolor: float = option(
        0.0, "share of the crops whose channels are exchanged, half of them negatives; 0 leaves colours alone"
    )
    mirror: bool = option(True, "learn crops mirrored and turned, too; --no-mirror for text and plates")

    scale: Literal[2, 3, 4] = option(4, "output pixels per input pixel, each way")
    features: int = option(64, "channels of the network's trunk; multiples of 16 are fastest")
    blocks: int = option(7, "gated residual blocks of two convolutions each")

    pixel_steps: int = option(100_000, "steps of phase 1, pixel loss; 0 skips it")
    adversarial_steps: int = option(20_000, "steps of phase 2, content and adversarial loss; 0 skips it")
    batch_size: int = option(16, "images a step, over all processes, phase 1")
    patch_size: int = option(48, "side of the lr crops in LR pixels, phase 1")
    pixel_loss: Literal["l1", "charbonnier", "mse", "log_mse"] = option(
        "l1", "loss of phase 1; log_mse is the one that PSNR is a mean of"
    )
    optimizer: Literal["muon", "adam"] = option(
        "muon", "phase 1: orthogonalised momentum for convolutions, or Adam for all"
    )
    learning_rate: float = option(1.5e-3, "peak step size of phase 1")
    final_learning_rate: float = option(0.0, "step size at the end of a phase, as a share of the peak")
    warmup_steps: int = option(100, "steps until the peak learning rate, each phase")
    ema_decay: float = option(0.999, "decay a step of the weight average that is evaluated and saved")
    clip_gradient: float = option(0.0, "largest gradient norm; 0 does not clip")
    expansion: int = option(
        2, "phase 1: over-parameterise 3x3 convolutions by this factor; 0 trains them plain"
    )

    adversarial_batch_size: int = option(16, "images a step, over all processes, phase 2")
    adversarial_patch_size: int = option(32, "side of the lr crops in LR pixels, phase 2")
    adversarial_optimizer: Literal["muon", "adam"] = option(
        "adam", "as --optimizer, for both networks of phase 2"
    )
    adversarial_learning_rate: float = option(4e-4, "peak step size of the generator, phase 2")
    discriminator_learning_rate: float = option(3e-4, "peak step size of the discriminator")
    pixel_weight: float = option(0.5, "weight of the L1 pixel loss in phase 2")
    grid_weight: float = option(10.0, "weight of the loss against patterns of LR pixel size in phase 2")
    content_weight: float = option(0.1, "weight of the VGG19 content loss in phase 2; 0 leaves it out")
    adversarial_weight: float = option(0.015, "weight of the adversarial loss in phase 2")
    content_layers: str = option(
        "conv1_2:0.1,conv2_2:0.1,conv3_4:1,conv4_4:1,conv5_4:1",
        "VGG19 layers before activation and their weights",
    )
    vgg: str = option("timm/vgg19.tv_in1k", "VGG19 weights: a safetensors file or a Hub repository")
    lpips_weight: float = option(
        0.0, "weight of the perceptual distance LPIPS in phase 2, which needs --lpips; 0 leaves it out"
    )
    lpips: str | None = option(None, "LPIPS weights (AlexNet): a safetensors file")
    discriminator_features: int = option(48, "channels of the discriminator's first level")

    validate_every: int = option(1000, "steps between validations; 0 validates at the end only")
    checkpoint_every: int = option(500, "steps between checkpoints")
    log_every: int = option(50, "steps between lines of metrics.jsonl")
    budget_minutes: float = option(
        0.0, "end each phase, its learning rate brought down, after so many minutes; 0 goes by steps alone"
    )
    max_minutes: float = option(0.0, "stop cleanly with a checkpoint after so many minutes; 0 does not")
    memory_limit: float = option(8.0, "decoded images are kept in memory up to so many GB, else read anew")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "where to train")
    precision: Literal["auto", "bf16", "fp32"] = option("auto", "autocast type; auto: bf16 where it is fast")
    threads: int = option(0, "CPU threads; 0 leaves torch's choice")
    compile: bool = option(False, "torch.compile the networks (pays on a GPU)")
    graph: bool = option(True, "on a GPU, record a step as a CUDA graph and replay it")
    tensorboard: bool = option(False, "also write TensorBoard events (extra: tensorboard)")

    license: str | None = option(None, "licence of the weights, as the Hub writes it, such as apache-2.0")
    data_statement: str | None = option(
        None, "where the training images come from and under which licences; the model card says it"
    )
    push_to_hub: bool = option(False, "push the finished model to the Hub; needs a licence and a statement")
    hub_model_id: str | None = option(None, "repository user/name; default: your name and that of --out")
    hub_private_repo: bool = option(False, "make the repository private if it is new")
    hub_token: str | None = option(None, "Hub token; default: that of the login. Never written to a file")

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in (*_LEARNING_RATES, "memory_limit"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in _LEARNING_RATES:
            if 100 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at most 100, got {getattr(self, name)}")
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}")
        if not 1 <= self.shrink <= 8:
            raise ValueError(f"shrink must lie in [1, 8], got {self.shrink}")
        for name in ("final_learning_rate", "ema_decay", "recolor"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, str) and value != value.encode("utf-8", "ignore").decode():
                raise ValueError(f"{item.name} must be UTF-8, as it is written down, got {value!r}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{item.name} must be finite, got {value}")
        if (self.lpips is None) != (self.lpips_weight == 0):
            raise ValueError(
                f"lpips and lpips_weight must be given together, got {self.lpips} and {self.lpips_weight}"
            )
        if self.init is None and self.init_fidelity is not None:
            raise ValueError(f"init_fidelity needs init, got {self.init_fidelity} for new weights")
        if self.license is not None:
            check_license(self.license)
        if self.pixel_steps + self.adversarial_steps == 0:
            raise ValueError("pixel_steps and adversarial_steps are both 0: nothing to train")

    @property
    def largest_patch(self) -> int:
        """Side in LR pixels of the larger crops of the phases that are run."""
        return max(
            self.patch_size if self.pixel_steps else 0,
            self.adversarial_patch_size if self.adversarial_steps else 0,
        )

    def save(self, path: Path) -> None:
        """Writes the settings, without the token, as JSON to ``path``, by a temporary file."""
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(self.without_token(), indent=2) + "\n")
        temporary.replace(path)

    def without_token(self) -> dict[str, Any]:
        """The settings by name, fit to be written down: all but ``hub_token``."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "hub_token"}

    @classmethod
    def load(cls, path: Path) -> "TrainConfig":
        """The settings that ``save`` wrote.

        Raises:
            ValueError: If the file is not JSON or names a field that does not exist.
        """
        try:
            values = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} must be JSON, got {error}") from error
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"{path} has unknown settings: {', '.join(unknown)}")
        return cls(**values)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds one flag for each field of ``TrainConfig``, with its help, type and default."""
    for item in dataclasses.fields(TrainConfig):
        flag = "--" + item.name.replace("_", "-")
        text = item.metadata["help"].replace("%", "%%") + " (default: %(default)s)"
        kind: Any = item.type
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=item.default, help=text)
            continue
        choices = None
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            kind = type(choices[0])
        elif isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not type(None))
        parser.add_argument(
            flag,
            type=kind,
            choices=choices,
            default=item.default,
            help=text,
            metavar=None if choices else kind.__name__.upper(),
        )


def from_arguments(arguments: argparse.Namespace) -> TrainConfig:
    """The settings that the parsed flags of ``add_arguments`` say."""
    return TrainConfig(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(TrainConfig)})
