import copy
import hashlib
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sr_hub.fused import add_nearest
from sr_hub.generator import RowsAbove, SRGenerator, save_weights


def tiny(scale: int = 4, blocks: int = 2) -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(scale=scale, features=8, blocks=blocks).eval()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_output_is_scale_times_as_large(scale: int) -> None:
    assert tiny(scale)(torch.rand(2, 3, 5, 7)).shape == (2, 3, 5 * scale, 7 * scale)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_receptive_radius_is_what_the_gradient_shows(blocks: int) -> None:
    generator = tiny(blocks=blocks).double()
    radius = generator.receptive_radius
    side = 2 * radius + 7
    lr = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    middle = side // 2
    generator(lr)[..., 4 * middle : 4 * middle + 4, 4 * middle : 4 * middle + 4].sum().backward()
    assert lr.grad is not None
    reached = lr.grad.abs().sum((0, 1)).nonzero() - middle
    assert reached.abs().max().item() == radius


def test_starts_near_nearest_neighbour() -> None:
    lr = torch.rand(1, 3, 6, 6)
    nearest = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
    difference = (tiny()(lr) - nearest).abs().mean()
    assert 0 < difference < 0.2


def test_every_block_is_heard() -> None:
    """A block whose signal fades on the way to the output costs its time for nothing."""
    generator, lr = tiny(blocks=8), torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        sr = generator(lr)
        for block in generator.blocks:
            silenced = copy.deepcopy(block.state_dict())
            for weight in block.parameters():
                weight.zero_()
            assert (generator(lr) - sr).abs().mean() > 1e-4
            block.load_state_dict(silenced)


def test_every_parameter_gets_a_finite_gradient() -> None:
    generator = tiny().train()
    (generator(torch.rand(1, 3, 12, 12)) - 0.3).square().mean().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 7)])
def test_inference_equals_training_forward(
    scale: int, layout: torch.memory_format, size: tuple[int, int]
) -> None:
    """Inference works in place and fuses steps; the result must be the same and the input untouched."""
    generator, lr = tiny(scale), torch.rand(2, 3, *size).to(memory_format=layout)
    generator.to(memory_format=layout)  # type: ignore[call-overload]  # torch's stub lacks it
    with torch.no_grad():
        generator.tail.weight.mul_(10)  # so that the convolutions, not the skip, make the picture
    before = lr.clone()
    with torch.inference_mode():
        inference = generator(lr)
    torch.testing.assert_close(inference, generator(lr), rtol=0, atol=2e-6)
    assert torch.equal(lr, before)


def test_inference_in_bf16_is_no_coarser_than_training_forward() -> None:
    generator, lr = tiny(), torch.rand(1, 3, 24, 24).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        generator.tail.weight.mul_(10)
    exact = generator(lr)
    coarse = copy.deepcopy(generator).bfloat16()
    with torch.inference_mode():
        inference_error = (coarse(lr) - exact).abs().mean()
    assert inference_error <= 1.2 * (coarse(lr) - exact).abs().mean()


@pytest.mark.parametrize("no_gradients", [torch.no_grad, torch.inference_mode])
def test_autocast_without_gradients_equals_autocast_with_them(no_gradients: Callable[[], Any]) -> None:
    generator, lr = tiny(), torch.rand(1, 3, 9, 7)
    with torch.no_grad():
        generator.tail.weight.mul_(10)
    with torch.autocast("cpu", torch.bfloat16):
        plain = generator(lr)
        with no_gradients():
            inference = generator(lr)
    assert inference.dtype == plain.dtype == torch.float32
    torch.testing.assert_close(inference, plain, rtol=0, atol=0.02)
    assert not torch.equal(inference, generator(lr))  # it ran in bf16, not beside autocast


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inference_takes_coarse_lr_and_gives_it_back(dtype: torch.dtype) -> None:
    generator, lr = tiny(), torch.rand(1, 3, 9, 7).to(dtype)
    exact = generator(lr.float())
    with torch.inference_mode():
        inference = generator.to(dtype)(lr)
    assert inference.dtype == dtype
    torch.testing.assert_close(inference.float(), exact, rtol=0, atol=0.02)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("gradients", [True, False])
def test_a_trace_equals_the_network(gradients: bool) -> None:
    """``torch.jit.trace`` fails where its graph is not that of a second trace, made without gradients."""
    generator, lr, other = tiny(), torch.rand(1, 3, 9, 7), torch.rand(2, 3, 8, 12)
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(generator, lr)
    torch.testing.assert_close(traced(other), generator(other))


def test_inference_in_float64_is_float64() -> None:
    generator, lr = tiny().double(), torch.rand(1, 3, 6, 6, dtype=torch.float64)
    with torch.inference_mode():
        inference = generator(lr)
    torch.testing.assert_close(inference, generator(lr), rtol=0, atol=1e-12)


def test_residual_and_nearest_make_the_output() -> None:
    generator, lr = tiny(3), torch.rand(2, 3, 5, 7)
    residual = generator.residual(lr)
    assert residual.shape == (2, 5, 7, 3, 3, 3)
    levels = (lr * 255).round()
    sub_pixels = add_nearest(residual, levels.permute(0, 2, 3, 1), gain=255)
    # row and column of the input, then row and column inside the pixel, then colour
    sr = sub_pixels.permute(0, 5, 1, 3, 2, 4).reshape(2, 3, 15, 21)
    shift = (levels / 255 - lr).repeat_interleave(3, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(sr / 255, generator(lr) + shift, rtol=0, atol=1e-6)
    assert torch.equal(residual, generator.residual(lr))  # not changed in place


def test_batch_equals_one_by_one() -> None:
    generator, lr = tiny(), torch.rand(3, 3, 8, 8)
    one_by_one = torch.cat([generator(image[None]) for image in lr])
    assert torch.allclose(generator(lr), one_by_one, atol=1e-6)


def test_bf16_weights_keep_a_float32_skip() -> None:
    generator = tiny()
    with torch.no_grad():
        generator.tail.weight.zero_()
        generator.tail.bias.zero_()
    lr = torch.rand(1, 3, 8, 8)
    sr = copy.deepcopy(generator).bfloat16()(lr)
    assert sr.dtype == torch.float32
    assert torch.equal(sr, generator(lr))  # with a zero tail, the skip is all there is


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("blocks", [1, 3])
def test_strips_give_what_the_whole_image_gives(blocks: int, inference: bool) -> None:
    """Strips of any height, down to one row, by the plain steps and by the fused ones."""
    generator = tiny(blocks=blocks)
    reach = generator.receptive_radius
    stops = [0, reach + 3, reach + 4, reach + 9, reach + 40, reach + 41]
    lr = torch.rand(2, 3, stops[-1], 9)
    expected = generator.residual(lr)
    above = RowsAbove()
    with torch.inference_mode(inference):
        strips = [
            generator.residual(lr[:, :, start:stop], above, last=stop == stops[-1])
            for start, stop in itertools.pairwise(stops)
        ]
    assert [strip.shape[1] for strip in strips] == [3, 1, 5, 31, reach + 1]
    torch.testing.assert_close(torch.cat(strips, dim=1), expected, rtol=0, atol=1e-6)
    assert not above  # nothing is kept of an image that is done


def test_a_first_strip_too_low_is_refused() -> None:
    generator = tiny(blocks=2)
    with pytest.raises(ValueError, match="first strip must have 13 rows at least, got 12"):
        generator.residual(torch.rand(1, 3, 12, 5), RowsAbove(), last=False)


def test_an_image_lower_than_the_reach_is_one_strip() -> None:
    generator, lr = tiny(blocks=2), torch.rand(1, 3, 1, 5)
    assert torch.equal(generator.residual(lr, RowsAbove()), generator.residual(lr))


def test_equal_seeds_give_equal_networks() -> None:
    lr = torch.rand(1, 3, 8, 8)
    assert torch.equal(tiny()(lr), tiny()(lr))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, "scale must be 2, 3 or 4, got 5"),
        ({"features": 0}, r"features must lie in \[1, 1024\], got 0"),
        ({"blocks": 0}, r"blocks must lie in \[1, 256\], got 0"),
        ({"features": 1025}, r"features must lie in \[1, 1024\], got 1025"),
        ({"blocks": 257}, r"blocks must lie in \[1, 256\], got 257"),
    ],
)
def test_wrong_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SRGenerator(**arguments)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"lr must have shape \(N, 3, H, W\), got"):
        tiny()(torch.rand(shape))


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_equal_weights_give_equal_bytes(tmp_path: Path, blocks: int) -> None:
    """safetensors writes its metadata in another order each time; a hash in a card would change by it."""
    generator, path = tiny(blocks=blocks), tmp_path / "w.safetensors"
    digests = set()
    for _ in range(20):
        save_weights(generator, path, ends=2)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1
    content = path.read_bytes()
    assert int.from_bytes(content[:8], "little") % 8 == 0
    expected = generator.state_dict()
    loaded = load_file(path)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    with safe_open(path, framework="pt") as file:
        assert list(file.metadata().values()).count("2") == 1 and file.metadata()["format"] == "pt"
    assert SRGenerator.from_pretrained(path).config == generator.config


def test_equal_weights_give_equal_bytes_in_another_process(tmp_path: Path) -> None:
    save_weights(tiny(), tmp_path / "here.safetensors")
    program = (
        "import sys; from pathlib import Path; from sr_hub.generator import SRGenerator, save_weights; "
        "save_weights(SRGenerator.from_pretrained(sys.argv[1]), Path(sys.argv[2]))"
    )
    there = tmp_path / "there.safetensors"
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "here.safetensors"), str(there)], check=True
    )
    assert there.read_bytes() == (tmp_path / "here.safetensors").read_bytes()
