"""Steps of the network that inference does in one pass over memory instead of two or three.

Each equals the plain steps within rounding, which tests hold. For inference alone: no gradient passes.
"""

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def runs_on_onednn(x: Tensor) -> bool:
    """Whether oneDNN's calls that fuse two steps may take ``x``: only where no gradient is ever asked.

    Nor under autocast, which converts weights to ``x``'s type for torch's own calls, not for these.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):  # torch.compile follows
        return False  # these two, but not the next
    if not torch.is_inference_mode_enabled() or x.device.type != "cpu":
        return False
    return x.shape[-2:] != (1, 1) and _works(x.dtype)  # torch 2.6 fails at a single pixel


@cache
def _works(dtype: torch.dtype) -> bool:
    """Whether the fused calls are there and right for ``dtype``: torch does not promise to keep it."""
    if not torch.backends.mkldnn.is_available() or dtype not in (torch.float32, torch.bfloat16):
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    with torch.random.fork_rng(devices=[]):
        conv = nn.Conv2d(2, 2, 3, padding=1).to(dtype)
    x = torch.linspace(-1, 1, 32).view(1, 2, 4, 4).to(dtype)
    try:
        pairs = (
            (_fused_conv(conv, x, 1, "leaky_relu", 0.1), F.leaky_relu(conv(x), 0.1)),
            (_fused_conv(conv, x, 1, "sigmoid"), conv(x).sigmoid()),
            (_fused_gated_conv(conv, x, x, 1), F.relu(conv(x) * x)),
            (_fused_add_conv(x.clone(), conv, x, 1), x + conv(x)),
        )
        return all(torch.allclose(fused, plain, atol=0.02) for fused, plain in pairs)
    except (AttributeError, RuntimeError, TypeError):  # gone, built without it, or with other arguments
        return False


_STRIDE_DILATION_GROUPS = ([1, 1], [1, 1], 1)


class Ends(NamedTuple):
    """Whether the picture ends above and below some rows of it; beside them it always does.

    A 3x3 convolution takes zeros for what lies beyond an end. Where the picture goes on, rows are lost: with
    no end on either side each convolution gives fewer than it takes. With an end on one side, zeros are
    taken on both and the rows that they spoil are cut at last: zeros on one side alone would cost a copy.
    """

    above: bool = True
    below: bool = True

    @property
    def zeros(self) -> int:
        """Rows of zeros above and below that a 3x3 convolution takes."""
        return int(self.above or self.below)

    def before(self, x: Tensor, rows: int) -> Tensor:
        """``x`` ``(..., H, W)`` without the rows that convolutions without zeros lose; shares its memory."""
        return x if self.zeros else x[..., rows : x.shape[-2] - rows, :]

    def after(self, x: Tensor, rows: int) -> Tensor:
        """``x`` ``(..., H, W)`` without the rows that zeros have spoilt; shares its memory."""
        if self.above == self.below:
            return x
        return x[..., 0 if self.above else rows : x.shape[-2] - (0 if self.below else rows), :]


WHOLE = Ends()


def plain_conv(conv: nn.Conv2d, x: Tensor, zeros: int = 1) -> Tensor:
    """``conv(x)`` for a 3x3 convolution, so many rows of zeros above and below it."""
    return F.conv2d(x, conv.weight, conv.bias, padding=(zeros, 1))


def _fused_conv(conv: nn.Conv2d, x: Tensor, zeros: int, activation: str, *scalars: float) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x, conv.weight, conv.bias, [zeros, 1], *_STRIDE_DILATION_GROUPS, activation, list(scalars), ""
    )


def _fused_gated_conv(conv: nn.Conv2d, x: Tensor, gate: Tensor, zeros: int) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, gate, conv.weight, conv.bias, [zeros, 1], *_STRIDE_DILATION_GROUPS, "mul", None, "relu", [], ""
    )


def _fused_add_conv(x: Tensor, conv: nn.Conv2d, h: Tensor, zeros: int) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        x, h, conv.weight, conv.bias, [zeros, 1], *_STRIDE_DILATION_GROUPS, "add", 1.0, None, [], None
    )


def _may_overwrite() -> bool:
    """Whether results may go where their input lay: no gradient needs it, and no trace records the step.

    ``torch.jit.trace`` checks itself without gradients and would find other steps than it has recorded.
    """
    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined]  # torch exports it all the same
    return not torch.is_grad_enabled() and not is_traced


def leaky_conv(conv: nn.Conv2d, x: Tensor, zeros: int = 1) -> Tensor:
    """``leaky_relu(conv(x), 0.1)`` as `plain_conv`; in inference in one pass over memory."""
    if runs_on_onednn(x):
        return _fused_conv(conv, x, zeros, "leaky_relu", 0.1)
    return F.leaky_relu(plain_conv(conv, x, zeros), 0.1, inplace=_may_overwrite())


def sigmoid_conv(conv: nn.Conv2d, x: Tensor, zeros: int = 1) -> Tensor:
    """``sigmoid(conv(x))`` as `plain_conv`; in inference in one pass over memory."""
    if runs_on_onednn(x):
        return _fused_conv(conv, x, zeros, "sigmoid")
    h = plain_conv(conv, x, zeros)
    return h.sigmoid_() if _may_overwrite() else h.sigmoid()


def gated_conv(conv: nn.Conv2d, x: Tensor, gate: Tensor, zeros: int = 1) -> Tensor:
    """``relu(conv(x) * gate)`` as `plain_conv`; in inference in one pass over memory."""
    if runs_on_onednn(x):
        return _fused_gated_conv(conv, x, gate, zeros)
    h = plain_conv(conv, x, zeros)
    return h.mul_(gate).relu_() if _may_overwrite() else F.relu(h * gate)


def add_conv(x: Tensor, conv: nn.Conv2d, h: Tensor, zeros: int = 1) -> Tensor:
    """``x + conv(h)`` as `plain_conv`; in inference in one pass over memory, written into ``x``."""
    if runs_on_onednn(h):
        return _fused_add_conv(x, conv, h, zeros)
    h = plain_conv(conv, h, zeros)
    return x.add_(h) if _may_overwrite() else x + h


def multiplies_exactly(x: Tensor) -> bool:
    """Whether `add_nearest` adds ``x``, its ``lr``, exactly: float32, products not rounded to fewer bits."""
    is_coarse = x.dtype != torch.float32 or torch.get_float32_matmul_precision() != "highest"
    return runs_on_onednn(x) and not is_coarse


def add_nearest(residual: Tensor, lr: Tensor, *, gain: float = 1.0) -> Tensor:
    """``gain * residual`` plus, at each sub-pixel, its input pixel, in float32.

    As a product with zeros and ones it takes a third of the time of an addition that repeats ``lr``. It is
    exact where `multiplies_exactly`, and everywhere for whole numbers up to 256.

    Args:
        residual: ``(..., scale, scale, 3)`` of any floating-point type, from ``SRGenerator.residual``.
        lr: ``(..., 3)``, float32.
        gain: Units of ``lr`` per unit of ``residual``.
    """
    sub_pixels = residual.shape[-3] * residual.shape[-2]
    rows = residual.to(torch.float32, copy=True).reshape(-1, 3 * sub_pixels)
    spread = torch.eye(3, dtype=torch.float32, device=lr.device).repeat(1, sub_pixels)
    return rows.addmm_(lr.reshape(-1, 3), spread, beta=gain).view(residual.shape)
