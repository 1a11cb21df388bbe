"""Over-parameterised convolutions, merged in weight space at every step.

Training sees ``weight + squeeze @ kernel @ expand``: a 1x1, a 3x3 and a 1x1 convolution in a row beside the
plain one, as in RepVGG (arXiv:2101.03697) and SPAN's Conv3XC, but folded before the convolution runs. The
images never pass the wide layers, so a step costs almost nothing extra, and what is saved is plain.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class _Expansion(nn.Module):
    def __init__(self, weight: Tensor, factor: int, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs = weight.shape[:2]

        def normal(*shape: int, deviation: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) * deviation)

        self.expand = normal(factor * inputs, inputs, deviation=inputs**-0.5)
        self.kernel = normal(
            factor * outputs, factor * inputs, 3, 3, deviation=1 / math.sqrt(9 * factor * inputs)
        )
        # Zero, so that expanding changes nothing at first.
        self.squeeze = nn.Parameter(torch.zeros(outputs, factor * outputs))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + torch.einsum("oa,abyx,bi->oiyx", self.squeeze, self.kernel, self.expand)


def expand(generator: nn.Module, factor: int, seed: int) -> None:
    """Over-parameterises every 3x3 convolution of 4 or more input channels by ``factor``, in place.

    The function that ``generator`` computes stays the same until it is trained.
    """
    random = torch.Generator().manual_seed(seed)
    for module in list(generator.modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3) and module.in_channels > 3:
            expansion = _Expansion(module.weight, factor, random).to(module.weight.device)
            parametrize.register_parametrization(module, "weight", expansion)


def merged_weights(generator: nn.Module) -> dict[str, Tensor]:
    """The plain weights of an expanded or plain generator, by the names of the plain one."""
    return {
        f"{name}.{kind}": getattr(module, kind)
        for name, module in generator.named_modules()
        if isinstance(module, nn.Conv2d)
        for kind in ("weight", "bias")
    }
