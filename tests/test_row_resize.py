"""Resizing some rows at a time."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_hub.resample import downscale_bicubic, upscale_bicubic
from sr_hub.row_resize import resize_rows


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    generator = np.random.default_rng(0)
    if dtype == np.float32:
        return generator.random(shape, dtype=np.float32)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def resized(pixels: np.ndarray, new_size: tuple[int, int], rows: int = 1000) -> np.ndarray:
    strips = (pixels[start : start + rows] for start in range(0, len(pixels), rows))
    return np.concatenate(list(resize_rows(strips, pixels.shape[:2], new_size)))


@pytest.mark.parametrize(
    ("new_size", "reference"), [((6, 8), downscale_bicubic), ((96, 128), upscale_bicubic)]
)
def test_whole_scales_equal_matlab(new_size: tuple[int, int], reference: object) -> None:
    pixels = noise(24, 32, 3, dtype=np.float32) * 0.5 + 0.25  # so that nothing is clamped
    expected = reference(torch.from_numpy(pixels).permute(2, 0, 1)[None], 4)  # type: ignore[operator]
    np.testing.assert_allclose(resized(pixels, new_size), expected[0].permute(1, 2, 0), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 20)),
    new_size=st.tuples(st.integers(1, 90), st.integers(1, 30)),
    rows=st.integers(1, 40),
    channels=st.integers(1, 4),
)
def test_the_result_does_not_depend_on_the_strips(
    size: tuple[int, int], new_size: tuple[int, int], rows: int, channels: int
) -> None:
    pixels = noise(*size, channels, dtype=np.uint16)
    whole = resized(pixels, new_size)
    assert whole.shape == (*new_size, channels) and whole.dtype == np.uint16
    np.testing.assert_array_equal(resized(pixels, new_size, rows), whole)


def test_memory_does_not_grow_with_the_strip() -> None:
    strip = noise(3000, 600, 3)
    tracemalloc.start()
    rows = sum(len(part) for part in resize_rows([strip], (3000, 600), (2250, 450)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 2250 and peak < strip.nbytes  # 5 MB; in float32 at once it would be 22 MB and more


def test_the_same_size_is_the_same_picture() -> None:
    pixels = noise(9, 7, 3)
    np.testing.assert_array_equal(resized(pixels, (9, 7)), pixels)


def test_transparent_colors_do_not_bleed() -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:, :10] = (200, 100, 50, 255)
    pixels[:, 10:] = (0, 255, 0, 0)
    result = resized(pixels, (7, 13))
    visible = result[..., 3] > 8
    assert visible.any() and not visible.all()
    assert np.abs(result[visible][:, :3].astype(int) - (200, 100, 50)).max() <= 1


def test_memory_does_not_grow_with_the_height() -> None:
    taken = 0

    def strips() -> object:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield noise(8, 4, 3)

    results = resize_rows(strips(), (800, 4), (300, 2))  # type: ignore[arg-type]
    next(results)
    assert taken <= 3  # not the whole picture before the first row comes
