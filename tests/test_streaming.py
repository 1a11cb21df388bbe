"""Results some rows at a time equal those of the whole; tiles shrink when memory is short."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_hub import streaming
from sr_hub.ensemble import DihedralEnsemble
from sr_hub.generator import SRGenerator
from sr_hub.images import Picture
from sr_hub.inference import upscale_picture
from sr_hub.streaming import strip_rows, tile_size_for, upscale_strips


def network(scale: int = 2, seed: int = 0) -> SRGenerator:
    torch.manual_seed(seed)
    generator = SRGenerator(scale=scale, features=4, blocks=1)
    with torch.no_grad():
        generator.tail.weight.mul_(5)
    return generator


def picture(height: int, width: int, channels: int, dtype: str, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    pixels = generator.random((height, width, channels))
    if channels in (2, 4):
        pixels[..., -1] *= generator.random((height, width)) < 0.5
    if dtype == "float32":
        return pixels.astype(np.float32)
    return np.rint(pixels * np.iinfo(dtype).max).astype(dtype)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 25)),
    channels=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    tile_size=st.integers(1, 40),
    strip_bytes=st.integers(1, 20000),
    seed=st.integers(0, 9),
)
def test_strips_equal_the_whole(
    size: tuple[int, int], channels: int, dtype: str, tile_size: int, strip_bytes: int, seed: int
) -> None:
    generator = network(seed=seed)
    pixels = picture(*size, channels, dtype, seed)
    strips = list(
        upscale_strips(generator, pixels, tile_size=tile_size, strip_bytes=strip_bytes, precision="fp32")
    )
    whole = upscale_picture(generator, Picture(pixels), tile_size=1000, precision="fp32").pixels
    joined = np.concatenate(strips)
    assert joined.shape == whole.shape and joined.dtype == whole.dtype
    step = {"uint8": 1, "uint16": 1, "float32": 2e-6}[dtype]
    difference = np.abs(joined.astype(np.float64) - whole.astype(np.float64))
    assert difference.max() <= step
    assert (difference > 0).mean() < 0.05 or dtype == "float32"


def test_strips_hold_no_more_than_allowed() -> None:
    pixels = picture(200, 30, 3, "uint8")
    strips = list(upscale_strips(network(), pixels, tile_size=20, strip_bytes=10_000))
    assert max(strip.nbytes for strip in strips) <= 10_000 and len(strips) > 3


@pytest.mark.parametrize(
    ("strip_bytes", "rows"), [(1, 1), (5 * 1200, 5), (25 * 1200, 20), (79 * 1200, 60), (10**9, 100)]
)
def test_rows_of_a_strip(strip_bytes: int, rows: int) -> None:
    assert strip_rows((100, 100, 3), 1, 2, 20, strip_bytes) == rows  # 2*2*100*3 = 1200 bytes for each


def test_progress_reaches_its_total() -> None:
    calls: list[tuple[int, int]] = []
    strips = upscale_strips(
        network(),
        picture(60, 30, 3, "uint8"),
        tile_size=10,
        strip_bytes=4000,
        progress=lambda *call: calls.append(call),
    )
    assert len(list(strips)) > 2
    assert calls[-1][0] == calls[-1][1] and [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_tiles_shrink_when_memory_is_short_and_the_result_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, pixels = network(), picture(90, 30, 3, "uint8")
    whole = upscale_picture(generator, Picture(pixels), precision="fp32").pixels
    real = streaming.upscale_prepared
    tried: list[int] = []

    def short(
        generator: torch.nn.Module, pixels: np.ndarray, size: int, *rest: object, grey: bool
    ) -> np.ndarray:
        tried.append(size)
        if size > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(generator, pixels, size, *rest, grey=grey)  # type: ignore[arg-type]

    monkeypatch.setattr(streaming, "upscale_prepared", short)
    said: list[int] = []
    strips = upscale_strips(
        generator, pixels, tile_size=80, precision="fp32", strip_bytes=6000, say=said.append
    )
    joined = np.concatenate(list(strips)).astype(int)
    assert np.abs(joined - whole).max() <= 1
    assert said == [40, 20]
    assert tried[:3] == [80, 40, 20] and set(tried[3:]) == {20}


def test_a_picture_that_never_fits_is_a_memory_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> np.ndarray:
        raise MemoryError("no more")

    monkeypatch.setattr(streaming, "upscale_prepared", full)
    with pytest.raises(MemoryError, match="short even with tiles of 16 pixels: no more"):
        list(upscale_strips(network(), picture(9, 9, 3, "uint8")))


def test_other_errors_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object, **options: object) -> np.ndarray:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(streaming, "upscale_prepared", wrong)
    with pytest.raises(RuntimeError, match="a mistake"):
        list(upscale_strips(network(), picture(9, 9, 3, "uint8")))


def test_less_memory_means_smaller_tiles() -> None:
    sizes = [tile_size_for(network(), True, "fp32", memory) for memory in (None, 2**40, 2**24, 1)]
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3] == 16


def test_the_ensemble_commutes_with_flips_and_turns_and_tiles() -> None:
    generator = DihedralEnsemble(network())
    lr = torch.rand(2, 3, 9, 12)
    with torch.no_grad():
        sr = generator(lr)
        single = generator.generator(lr)
        for dims in ((-1,), (-2,), (-1, -2)):
            torch.testing.assert_close(generator(lr.flip(dims)), sr.flip(dims), rtol=0, atol=1e-6)
        torch.testing.assert_close(generator(lr.mT), sr.mT, rtol=0, atol=1e-6)
    assert (sr - single).abs().max() > 1e-3
    pixels = picture(50, 40, 3, "float32")
    strips = list(upscale_strips(generator, pixels, tile_size=9, strip_bytes=5000, precision="fp32"))
    whole = upscale_picture(generator, Picture(pixels), precision="fp32").pixels
    np.testing.assert_allclose(np.concatenate(strips), whole, atol=1e-6)
