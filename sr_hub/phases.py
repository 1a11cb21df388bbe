"""The two training phases: what one step does and what a checkpoint must keep of it."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sr_hub.config import TrainConfig
from sr_hub.data import SHIFTS, Batch
from sr_hub.discriminator import Discriminator
from sr_hub.expansion import expand, merged_weights
from sr_hub.generator import SRGenerator
from sr_hub.losses import (
    ContentLoss,
    adversarial_loss,
    discriminator_loss,
    grid_loss,
    parse_content_layers,
    pixel_loss,
)
from sr_hub.metrics import LPIPS
from sr_hub.optimizers import Optimizers
from sr_hub.step_graph import StepGraph

M = TypeVar("M", bound=nn.Module)


class Phase(Protocol):
    """One phase of training; ``ema`` is the plain generator that is evaluated and saved."""

    ema: SRGenerator

    def step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        """Takes one optimizer step at ``rate`` times the peak learning rate; returns losses by name."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that a later ``load`` needs to go on bit-exactly."""
        ...

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what ``state`` gave."""
        ...


class _Averaged(ABC):
    """A generator in training beside the exponential moving average of its weights."""

    def __init__(
        self, start: SRGenerator, config: TrainConfig, device: torch.device, bf16: bool, *, expansion: int
    ) -> None:
        self.config = config
        self.ema = _placed(copy.deepcopy(start), device)
        self.ema.requires_grad_(False)
        self.generator = _placed(copy.deepcopy(start), device)
        self.generator.requires_grad_(True)
        if expansion:
            expand(self.generator, expansion, config.seed)
        self.device, self.bf16 = device, bf16
        self.steps = 0
        self.newest = torch.ones((), device=device)  # weight of the newest step in the average
        self.run = torch.compile(self.generator) if config.compile else self.generator
        self.take: Callable[..., dict[str, Tensor]] = self.take_step
        if device.type == "cuda" and config.graph and not _beside_others():
            self.take = StepGraph(self.take_step)

    def autocast(self) -> torch.autocast | nullcontext[None]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    @property
    @abstractmethod
    def all_optimizers(self) -> list[Optimizers]:
        """What moves the weights of this phase's networks."""

    @abstractmethod
    def take_step(self, lr: Tensor, hr: Tensor, shift: Tensor) -> dict[str, Tensor]:
        """One step on the tensors of a `Batch`, at the rate that the optimizers have."""

    def step(self, batch: Batch, rate: float) -> dict[str, Tensor]:
        for optimizers in self.all_optimizers:
            optimizers.set_rate(rate)
        self.steps += 1
        decay = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))  # forgets the random start
        self.newest.fill_(1 - decay)
        return self.take(batch.lr, batch.hr, batch.shift)

    @torch.no_grad()
    def average(self) -> None:
        current = merged_weights(self.generator)
        for name, average in self.ema.named_parameters():
            average.lerp_(current[name], self.newest)

    def descend(self, loss: Tensor, model: nn.Module, optimizers: Optimizers) -> None:
        model.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for p in model.parameters() if p.grad is not None]
        average_gradients(parameters)
        if self.config.clip_gradient:
            nn.utils.clip_grad_norm_(parameters, self.config.clip_gradient)
        optimizers.step()

    def state(self) -> dict[str, Tensor]:
        return {
            **_named("ema", self.ema),
            **_named("generator", self.generator),
            "averaged_steps": torch.tensor(self.steps),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        _restore(self.ema, tensors, "ema")
        _restore(self.generator, tensors, "generator")
        self.steps = int(tensors["averaged_steps"])


class PixelPhase(_Averaged):
    """Phase 1: the generator learns the mean of what fits, by a pixel loss."""

    def __init__(self, start: SRGenerator, config: TrainConfig, device: torch.device, bf16: bool) -> None:
        super().__init__(start, config, device, bf16, expansion=config.expansion)
        self.optimizers = Optimizers(self.generator, config.optimizer, config.learning_rate)

    @property
    def all_optimizers(self) -> list[Optimizers]:
        return [self.optimizers]

    def take_step(self, lr: Tensor, hr: Tensor, shift: Tensor) -> dict[str, Tensor]:
        with self.autocast():
            sr = self.run(lr)
        loss = pixel_loss(sr.float(), hr, self.config.pixel_loss)
        self.descend(loss, self.generator, self.optimizers)
        self.average()
        return {"pixel_loss": loss.detach()}

    def state(self) -> dict[str, Tensor]:
        return super().state() | self.optimizers.state("optimizer")

    def load(self, tensors: dict[str, Tensor]) -> None:
        super().load(tensors)
        self.optimizers.load(tensors, "optimizer")


def check_adversarial(config: TrainConfig, vgg: Path | None) -> None:
    """Checks, before phase 1 has taken its hours, what only phase 2 makes use of.

    Args:
        config: The settings.
        vgg: The file of VGG19's weights, which is read; None without a content loss.

    Raises:
        FileNotFoundError: If there is no file of LPIPS's weights.
        ValueError: If a content layer is wrong, a file does not hold the weights of VGG19 or LPIPS, or crops
            of ``adversarial_patch_size`` have sides that discriminator, VGG19 or LPIPS cannot take.
    """
    least = 8  # the discriminator's, see there
    with torch.random.fork_rng(devices=[]):
        features = ContentLoss(parse_content_layers(config.content_layers)).features
        if config.lpips is not None:
            least = max(least, LPIPS.from_file(config.lpips).least_side)
    if vgg is not None:
        least = max(least, features.least_side)
    side = config.adversarial_patch_size * config.scale - SHIFTS
    if side < least or side % 2:
        raise ValueError(
            f"adversarial_patch_size times scale must be an even number of at least {least + SHIFTS} HR "
            f"pixels, got {config.adversarial_patch_size} * {config.scale} = {side + SHIFTS}"
        )
    if vgg is not None:
        features.load(vgg)


class AdversarialPhase(_Averaged):
    """Phase 2: pixel, content and adversarial loss against a discriminator (SRGAN, arXiv:1609.04802).

    Args:
        start: The weights to begin with.
        config: The settings; content and LPIPS are left out where their weight is 0.
        device: Where to train.
        bf16: Whether to run the networks in bf16.
        vgg: The file of VGG19's weights; None without a content loss.
        calibration: HR images ``(N, 3, H, W)`` for ``ContentLoss.calibrate``.
    """

    def __init__(
        self,
        start: SRGenerator,
        config: TrainConfig,
        device: torch.device,
        bf16: bool,
        *,
        vgg: Path | None,
        calibration: Tensor,
    ) -> None:
        super().__init__(start, config, device, bf16, expansion=0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed + 1)
            discriminator = Discriminator(features=config.discriminator_features)
        self.discriminator = _placed(discriminator, device)
        self.content: ContentLoss | None = None
        self.lpips: LPIPS | None = None
        if vgg is not None:
            content = ContentLoss(parse_content_layers(config.content_layers))
            content.features.load(vgg)
            self.content = _placed(content, device)
            self.content.calibrate(calibration)
        if config.lpips is not None:
            self.lpips = _placed(LPIPS.from_file(config.lpips), device)
        kind = config.adversarial_optimizer
        self.generator_optimizers = Optimizers(self.generator, kind, config.adversarial_learning_rate)
        self.discriminator_optimizers = Optimizers(
            self.discriminator, kind, config.discriminator_learning_rate
        )
        if config.compile and self.content is not None:
            self.content.compile()

    @property
    def all_optimizers(self) -> list[Optimizers]:
        return [self.generator_optimizers, self.discriminator_optimizers]

    def take_step(self, lr: Tensor, hr: Tensor, shift: Tensor) -> dict[str, Tensor]:
        config = self.config
        with self.autocast():
            sr = self.run(lr)
            losses = {
                "pixel_loss": pixel_loss(sr.float(), hr, "l1"),
                "grid_loss": grid_loss(sr.float(), hr, config.scale),
            }
            sr, hr = _window(sr, shift), _window(hr, shift)
            self.discriminator.requires_grad_(False)
            sr_logits = self.discriminator(sr)
            if self.content is not None:
                losses["content_loss"] = self.content(sr, hr)
            if self.lpips is not None:
                losses["lpips_loss"] = self.lpips.distance(sr, hr).mean()
        losses["adversarial_loss"] = adversarial_loss(sr_logits)
        terms = [getattr(config, name.replace("loss", "weight")) * value for name, value in losses.items()]
        self.descend(torch.stack(terms).sum(), self.generator, self.generator_optimizers)
        self.average()

        self.discriminator.requires_grad_(True)
        with self.autocast():
            hr_logits, sr_logits = self.discriminator(torch.cat([hr, sr.detach().to(hr.dtype)])).chunk(2)
        d_loss = discriminator_loss(hr_logits, sr_logits)
        self.descend(d_loss, self.discriminator, self.discriminator_optimizers)
        return {
            **{name: value.detach() for name, value in losses.items()},
            "discriminator_loss": d_loss.detach(),
            "probability_hr": hr_logits.detach().float().sigmoid().mean(),
            "probability_sr": sr_logits.detach().float().sigmoid().mean(),
        }

    def state(self) -> dict[str, Tensor]:
        return {
            **super().state(),
            **_named("discriminator", self.discriminator),
            **self.generator_optimizers.state("generator_optimizer"),
            **self.discriminator_optimizers.state("discriminator_optimizer"),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        super().load(tensors)
        _restore(self.discriminator, tensors, "discriminator")
        self.generator_optimizers.load(tensors, "generator_optimizer")
        self.discriminator_optimizers.load(tensors, "discriminator_optimizer")


def _window(image: Tensor, shift: Tensor) -> Tensor:
    """``image`` without `SHIFTS` rows and columns, from ``shift`` on.

    The gradients of strides and pools repeat every 2, 4, 8 pixels. Always in one place on the grid of LR
    pixels, they would draw that grid into ``sr``.
    """
    for dimension, first in zip((-2, -1), shift, strict=True):
        kept = torch.arange(image.shape[dimension] - SHIFTS, device=image.device)
        image = image.index_select(dimension, kept + first)
    return image.contiguous(memory_format=torch.channels_last)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Averages gradients over all processes, in one message; does nothing in a single one."""
    if not _beside_others():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def _beside_others() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _placed(module: M, device: torch.device) -> M:
    return module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _named(prefix: str, model: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in model.state_dict().items()}


def _restore(model: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    own = {n.removeprefix(prefix + "."): v for n, v in tensors.items() if n.startswith(prefix + ".")}
    model.load_state_dict(own)
