"""What moves a network's weights: Adam, or Muon for the weights of convolutions and Adam for the rest."""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sr_hub.checkpoint import flatten_optimizer, restore_optimizer


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: all singular values are brought near 1.

    Five quintic Newton-Schulz iterations with the coefficients of Jordan et al., "Muon" (2024), on a GPU in
    bf16 as there.

    Args:
        matrices: ``(N, R, C)``, any scale.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-12)
    if x.is_cuda:
        x = x.bfloat16()
    for _ in range(5):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised per weight; a convolution's kernel counts as ``(O, I*kh*kw)``.

    The step is scaled so that its root mean square is 0.2 times the learning rate, about Adam's
    (Liu et al., arXiv:2502.16982, section 2.2). Weights of one shape are done in one batch.

    Args:
        params: Weights of two or more dimensions.
        learning_rate: Step size; a tensor where a CUDA graph is to see it change.
        momentum: Decay of the momentum.
    """

    def __init__(
        self, params: Iterable[Tensor], learning_rate: float | Tensor, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": learning_rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # returns no loss
        """Moves every weight that has a gradient; takes no ``closure``."""
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            gradients = [weight.grad for weight in weights]
            momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
            torch._foreach_mul_(momenta, group["momentum"])
            torch._foreach_add_(momenta, gradients)
            directions = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight, direction in zip(weights, directions, strict=True):
                alike[weight.shape].append((weight, direction.float().flatten(1)))
            for pairs in alike.values():
                updates = orthogonalise(torch.stack([direction for _, direction in pairs]))
                updates = updates * (group["lr"] * (0.2 * math.sqrt(max(updates.shape[1:]))))
                moved = [weight for weight, _ in pairs]
                torch._foreach_sub_(moved, list(updates.view(-1, *moved[0].shape)))


def split_weights(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The trainable weights for Muon (kernels of more than 3 input channels) and the rest, for Adam."""
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for weight in model.parameters():
        if weight.requires_grad:
            is_matrix = weight.ndim >= 2 and weight.shape[1] > 3
            (matrices if is_matrix else rest).append(weight)
    return matrices, rest


class Optimizers:
    """What moves one network's weights: Adam alone, or Muon for its kernels and Adam for the rest.

    Args:
        model: The network.
        kind: ``"muon"`` or ``"adam"``.
        learning_rate: Peak step size; with Muon, Adam's share takes an eighth of it.
    """

    def __init__(self, model: nn.Module, kind: str, learning_rate: float) -> None:
        device = next(model.parameters()).device

        def adam(parameters: Iterable[Tensor], rate: float) -> torch.optim.Adam:
            return torch.optim.Adam(
                parameters, _rate(rate, device), betas=(0.9, 0.99), capturable=device.type == "cuda"
            )

        if kind == "muon":
            matrices, rest = split_weights(model)
            self.all: list[torch.optim.Optimizer] = [adam(rest, learning_rate / 8)]
            self.peaks = [learning_rate / 8]
            if matrices:  # which the narrowest networks have none of
                self.all.insert(0, Muon(matrices, _rate(learning_rate, device)))
                self.peaks.insert(0, learning_rate)
        else:
            self.all = [adam(model.parameters(), learning_rate)]
            self.peaks = [learning_rate]

    def set_rate(self, rate: float) -> None:
        """Sets the step sizes to ``rate`` times their peaks."""
        for optimizer, peak in zip(self.all, self.peaks, strict=True):
            group = optimizer.param_groups[0]
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(peak * rate)
            else:
                group["lr"] = peak * rate

    def step(self) -> None:
        """Moves every weight that has a gradient."""
        for optimizer in self.all:
            optimizer.step()

    def state(self, prefix: str) -> dict[str, Tensor]:
        """All state tensors by names that begin with ``prefix``."""
        return {
            name: value
            for index, optimizer in enumerate(self.all)
            for name, value in flatten_optimizer(optimizer, f"{prefix}{index}").items()
        }

    def load(self, tensors: dict[str, Tensor], prefix: str) -> None:
        """Puts back what ``state`` gave."""
        for index, optimizer in enumerate(self.all):
            restore_optimizer(optimizer, tensors, f"{prefix}{index}")


def _rate(value: float, device: torch.device) -> float | Tensor:
    """A step size: in a tensor on a GPU, where a `StepGraph` must see it change."""
    return torch.tensor(value, device=device) if device.type == "cuda" else value
