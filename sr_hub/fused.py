"""Steps of the network that inference does in one pass over memory instead of two or three.

Each equals the plain steps within rounding, which tests hold. For inference alone: no gradient passes.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def runs_on_onednn(x: Tensor) -> bool:
    """Whether oneDNN's calls that fuse two steps may take ``x``: only where no gradient is ever asked."""
    if torch.is_grad_enabled():  # asked first: torch.compile follows it, but not the next
        return False
    return torch.is_inference_mode_enabled() and x.device.type == "cpu" and _works(x.dtype)


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
            (_fused_leaky_conv(conv, x), F.leaky_relu(conv(x), 0.1)),
            (_fused_sigmoid_conv(conv, x), conv(x).sigmoid()),
            (_fused_gated_conv(conv, x, x), F.relu(conv(x) * x)),
            (_fused_add_conv(x.clone(), conv, x), x + conv(x)),
        )
        return all(torch.allclose(fused, plain, atol=0.02) for fused, plain in pairs)
    except (AttributeError, RuntimeError, TypeError):  # gone, built without it, or with other arguments
        return False


_ONES = ([1, 1], [1, 1], [1, 1], 1)  # padding, stride, dilation, groups


def _fused_leaky_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, conv.weight, conv.bias, *_ONES, "leaky_relu", [0.1], "")


def _fused_sigmoid_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(x, conv.weight, conv.bias, *_ONES, "sigmoid", [], "")


def _fused_gated_conv(conv: nn.Conv2d, x: Tensor, gate: Tensor) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, gate, conv.weight, conv.bias, *_ONES, "mul", None, "relu", [], ""
    )


def _fused_add_conv(x: Tensor, conv: nn.Conv2d, h: Tensor) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise_.binary(
        x, h, conv.weight, conv.bias, *_ONES, "add", 1.0, None, [], None
    )


def leaky_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``leaky_relu(conv(x), 0.1)`` for a 3x3 convolution; in inference in one pass over memory."""
    if runs_on_onednn(x):
        return _fused_leaky_conv(conv, x)
    return F.leaky_relu(conv(x), 0.1, inplace=not torch.is_grad_enabled())


def sigmoid_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``sigmoid(conv(x))`` for a 3x3 convolution; in inference in one pass over memory."""
    if runs_on_onednn(x):
        return _fused_sigmoid_conv(conv, x)
    return conv(x).sigmoid() if torch.is_grad_enabled() else conv(x).sigmoid_()


def gated_conv(conv: nn.Conv2d, x: Tensor, gate: Tensor) -> Tensor:
    """``relu(conv(x) * gate)`` for a 3x3 convolution; in inference in one pass over memory."""
    if runs_on_onednn(x):
        return _fused_gated_conv(conv, x, gate)
    return F.relu(conv(x) * gate) if torch.is_grad_enabled() else conv(x).mul_(gate).relu_()


def add_conv(x: Tensor, conv: nn.Conv2d, h: Tensor) -> Tensor:
    """``x + conv(h)`` for a 3x3 convolution; in inference in one pass over memory, written into ``x``."""
    if runs_on_onednn(h):
        return _fused_add_conv(x, conv, h)
    return x + conv(h) if torch.is_grad_enabled() else x.add_(conv(h))


def multiplies_exactly(x: Tensor) -> bool:
    """Whether `add_nearest` adds ``x`` exactly: where products of float32 are not rounded to fewer bits."""
    return runs_on_onednn(x) and torch.get_float32_matmul_precision() == "highest"


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
    spread = torch.eye(3, device=lr.device).repeat(1, sub_pixels)
    return rows.addmm_(lr.reshape(-1, 3), spread, beta=gain).view(residual.shape)
