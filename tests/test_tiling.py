"""Tiles give what the whole image gives."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sr_hub.tiling import map_tiles, row_strips, tile_spans

SIZES = st.integers(1, 70)


def blur(window: torch.Tensor) -> torch.Tensor:
    """Two zero-padded 3x3 convolutions: reaches 2 pixels far and sees the border of the image."""
    kernel = torch.arange(1, 10, dtype=window.dtype).reshape(1, 1, 3, 3) / 45
    return F.conv2d(F.conv2d(window, kernel, padding=1), kernel, padding=1)


@given(length=st.integers(1, 500), tile_size=st.integers(1, 100), overlap=st.integers(0, 40))
def test_spans_cover_the_axis_once_in_equal_windows_with_whole_halos(
    length: int, tile_size: int, overlap: int
) -> None:
    spans = tile_spans(length, tile_size, overlap)
    kept = [pixel for span in spans for pixel in range(span.keep_start, span.keep_stop)]
    assert kept == list(range(length))
    assert len({span.stop - span.start for span in spans}) == 1
    for span in spans:
        assert 0 <= span.start <= span.keep_start < span.keep_stop <= span.stop <= length
        assert span.keep_start - span.start >= overlap or span.start == 0
        assert span.stop - span.keep_stop >= overlap or span.stop == length
        assert span.stop - span.start <= tile_size + 2 * overlap
        borders = (span.start == 0) + (span.stop == length)
        assert span.keep_stop - span.keep_start <= tile_size + borders * overlap


def test_spans_of_a_known_case() -> None:
    # 10 pixels, 3 kept, halo 1: windows of 5 = ceil((10 - 2) / 3) + 2 starting at 0, 2 and 5.
    spans = tile_spans(10, 3, 1)
    assert [(span.start, span.stop) for span in spans] == [(0, 5), (2, 7), (5, 10)]
    assert [(span.keep_start, span.keep_stop) for span in spans] == [(0, 3), (3, 6), (6, 10)]
    assert spans[1].crop(4) == slice(4, 16)
    assert spans[1].target(4) == slice(12, 24)


@settings(deadline=None, max_examples=60)
@given(height=SIZES, width=SIZES, tile_size=st.integers(1, 80), seed=st.integers(0, 99))
def test_tiled_equals_whole(height: int, width: int, tile_size: int, seed: int) -> None:
    source = torch.rand(
        1, 1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    target = torch.full_like(source, torch.nan)
    map_tiles(blur, source, target, tile_size=tile_size, overlap=2)
    torch.testing.assert_close(target, blur(source), rtol=0, atol=1e-12)


def test_a_halo_too_small_is_seen() -> None:
    source = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    target = torch.empty_like(source)
    map_tiles(blur, source, target, tile_size=8, overlap=1)
    assert (target - blur(source)).abs().max() > 1e-3


def test_tiles_are_written_into_a_strided_buffer_of_another_dtype() -> None:
    source = torch.randint(0, 63, (9, 11, 3), dtype=torch.uint8).permute(2, 0, 1)[None]
    pixels = torch.zeros(27, 33, 3, dtype=torch.uint8)
    target = pixels.permute(2, 0, 1)[None]
    enlarge = lambda window: F.interpolate(window.float() * 4, scale_factor=3)  # noqa: E731
    map_tiles(enlarge, source, target, tile_size=4, overlap=0, scale=3)
    assert torch.equal(pixels[4, 7], source[0, :, 1, 2] * 4)
    assert torch.equal(target.float(), enlarge(source))


@given(height=st.integers(1, 500), rows=st.integers(1, 100), overlap=st.integers(0, 40))
@example(height=13, rows=6, overlap=5)
def test_strips_read_and_do_every_row_once_and_the_done_lag_behind(
    height: int, rows: int, overlap: int
) -> None:
    strips = row_strips(height, rows, overlap)
    for part in ("read", "done"):
        slices = [getattr(strip, part) for strip in strips]
        assert [row for piece in slices for row in range(piece.start, piece.stop)] == list(range(height))
        assert all(piece.start < piece.stop for piece in slices)
    assert all(strip.read.stop - strip.done.stop == overlap for strip in strips[:-1])
    assert all(strip.done.stop - strip.done.start <= rows for strip in strips[:-1])
    assert strips[-1].done.stop - strips[-1].done.start <= rows + overlap
    merged = len(strips) < -(-height // rows)  # where the last would have read nothing of its own
    heights = {strip.done.stop - strip.done.start for strip in strips[: -1 if merged else None]}
    assert not heights or max(heights) - min(heights) <= 1


@given(height=st.integers(1, 300), rows=st.integers(1, 60), fewest=st.integers(1, 60))
def test_no_strip_reads_or_does_fewer_rows_than_wanted(height: int, rows: int, fewest: int) -> None:
    strips = row_strips(height, max(rows, fewest), 30, fewest=fewest)
    for strip in strips:
        for piece in (strip.read, strip.done):
            assert piece.stop - piece.start >= min(fewest, height)


def test_strips_of_a_known_case() -> None:
    # 11 rows in 3 strips of 3 or 4, the first of which reads 2 more, and the last 2 less.
    strips = row_strips(11, 4, 2)
    assert [strip.read for strip in strips] == [slice(0, 5), slice(5, 9), slice(9, 11)]
    assert [strip.done for strip in strips] == [slice(0, 3), slice(3, 7), slice(7, 11)]
    # 2 done at once, 3 behind: when 9 are read, so are all, and the last strip does what is left.
    strips = row_strips(9, 2, 3)
    assert [strip.read for strip in strips] == [slice(0, 4), slice(4, 6), slice(6, 8), slice(8, 9)]
    assert [strip.done for strip in strips] == [slice(0, 1), slice(1, 3), slice(3, 5), slice(5, 9)]


def test_progress_counts_every_tile() -> None:
    calls: list[tuple[int, int]] = []
    source = torch.zeros(1, 1, 10, 5)
    map_tiles(
        blur,
        source,
        torch.empty_like(source),
        tile_size=3,
        overlap=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]  # 10 rows in 3 tiles; 5 columns fit one window of 3 + 2


@pytest.mark.parametrize(("length", "tile_size", "overlap"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_impossible_spans_are_refused(length: int, tile_size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match=f"got {length}, {tile_size} and {overlap}"):
        tile_spans(length, tile_size, overlap)
    with pytest.raises(ValueError, match=f"got {length}, {tile_size} and {overlap}"):
        row_strips(length, tile_size, overlap)
    with pytest.raises(ValueError, match="got 1, 1 and 0, and fewest 0"):
        row_strips(1, 1, 0, fewest=0)


def test_a_target_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"target must have size \(8, 8\), got \(4, 4\)"):
        map_tiles(blur, torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), tile_size=4, overlap=2, scale=2)


def test_a_function_of_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"function must return size \(8, 8\), got \(4, 4\)"):
        map_tiles(blur, torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 8, 8), tile_size=4, overlap=2, scale=2)
