"""Fused steps equal the plain ones."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from sr_hub.fused import (
    Ends,
    add_conv,
    add_nearest,
    gated_conv,
    leaky_conv,
    multiplies_exactly,
    plain_conv,
    runs_on_onednn,
    sigmoid_conv,
)

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")


@needs_onednn
def test_only_inference_on_a_cpu_runs_fused() -> None:
    x = torch.rand(1, 3, 4, 4)
    assert not runs_on_onednn(x)
    with torch.no_grad():
        assert not runs_on_onednn(x)  # exporters trace in this mode and know only plain operators
    with torch.inference_mode():
        assert runs_on_onednn(x)
        assert not runs_on_onednn(x.double())
        assert not runs_on_onednn(x.half())
        with torch.autocast("cpu", torch.bfloat16):  # it would give these calls bf16 beside float32
            assert not runs_on_onednn(x)


@needs_onednn
def test_coarse_products_are_not_taken_for_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        assert multiplies_exactly(torch.rand(1, 3, 4, 4))
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
        assert not multiplies_exactly(torch.rand(1, 3, 4, 4))


def in_inference(
    step: Callable[..., torch.Tensor],
    conv: torch.nn.Conv2d,
    images: list[torch.Tensor],
    dtype: torch.dtype,
    layout: torch.memory_format,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What ``step`` gives in inference, all it takes in ``dtype`` and ``layout``; and the images it took."""
    conv.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    taken = [image.to(dtype).contiguous(memory_format=layout) for image in images]
    with torch.inference_mode():
        fused = step(conv, *taken)
    assert fused.dtype == dtype
    return fused, taken


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_leaky_conv(layout: torch.memory_format, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    x = torch.randn(2, 8, 6, 5)
    expected = F.leaky_relu(conv(x), 0.1)
    assert (expected < 0).any() and (expected > 0).any()
    fused, _ = in_inference(leaky_conv, conv, [x], dtype, layout)
    torch.testing.assert_close(fused.float(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_sigmoid_conv(layout: torch.memory_format, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    x = torch.randn(2, 8, 6, 5)
    expected = 1 / (1 + (-conv(x)).exp())
    torch.testing.assert_close(sigmoid_conv(conv, x), expected, rtol=0, atol=1e-6)
    fused, _ = in_inference(sigmoid_conv, conv, [x], dtype, layout)
    torch.testing.assert_close(fused.float(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_gated_conv(layout: torch.memory_format, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    x, gate = torch.randn(2, 8, 6, 5), torch.rand(2, 8, 6, 5)
    expected = (conv(x) * gate).clamp(min=0)
    assert (expected == 0).any() and (expected > 0).any()
    assert torch.equal(gated_conv(conv, x, gate), expected)
    fused, inputs = in_inference(gated_conv, conv, [x, gate], dtype, layout)
    torch.testing.assert_close(fused.float(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(inputs[1].float(), gate, rtol=0, atol=1e-2)  # not changed in place


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-2)])
def test_add_conv(layout: torch.memory_format, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    x, h = torch.randn(2, 8, 6, 5), torch.randn(2, 8, 6, 5)
    expected = x + conv(h)
    assert torch.equal(add_conv(x, conv, h), expected)  # with gradients nothing is changed in place
    fused, (stream, _) = in_inference(lambda conv, x, h: add_conv(x, conv, h), conv, [x, h], dtype, layout)
    assert fused.data_ptr() == stream.data_ptr()
    torch.testing.assert_close(fused.float(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("ends", [Ends(above, below) for above in (True, False) for below in (True, False)])
def test_rows_of_a_picture_that_goes_on(ends: Ends, inference: bool) -> None:
    """Each step, given some rows of a picture, gives those of the whole that it can know."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    whole, gate = torch.randn(1, 8, 9, 5), torch.rand(1, 8, 9, 5)
    rows = slice(0 if ends.above else 2, 9 if ends.below else 7)
    known = slice(0 if ends.above else 3, 9 if ends.below else 6)
    x = whole[:, :, rows]
    with torch.inference_mode(inference):
        for step in (plain_conv, leaky_conv, sigmoid_conv):
            result = ends.after(step(conv, x, ends.zeros), 1)
            torch.testing.assert_close(result, step(conv, whole)[:, :, known], rtol=0, atol=1e-6)
        gated = ends.after(gated_conv(conv, x, ends.before(gate[:, :, rows], 1), ends.zeros), 1)
        torch.testing.assert_close(gated, gated_conv(conv, whole, gate)[:, :, known], rtol=0, atol=1e-6)
        added = ends.after(add_conv(ends.before(x, 1).clone(), conv, x, ends.zeros), 1)
        expected = (whole + conv(whole))[:, :, known]
        torch.testing.assert_close(added, expected, rtol=0, atol=1e-6)


def test_add_nearest_by_hand() -> None:
    residual = torch.arange(12.0).reshape(1, 2, 2, 3)  # one pixel, scale 2
    lr = torch.tensor([[0.1, 0.2, 0.3]])
    expected = torch.tensor([[[[0.1, 2.2, 4.3], [6.1, 8.2, 10.3]], [[12.1, 14.2, 16.3], [18.1, 20.2, 22.3]]]])
    torch.testing.assert_close(add_nearest(residual, lr, gain=2), expected, rtol=0, atol=1e-6)
    assert residual[0, 0, 0, 1] == 1  # not changed in place


def test_add_nearest_adds_exactly() -> None:
    lr = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    sums = add_nearest(torch.zeros(50, 4, 4, 3, dtype=torch.bfloat16), lr)
    assert sums.dtype == torch.float32
    assert torch.equal(sums, lr[:, None, None].expand(50, 4, 4, 3))
