"""Apply a function to an image tile by tile, with the result of the whole image.

Each tile is a window of the image. Inside the image a window reaches `overlap` pixels beyond the part that is
kept, so the kept part sees its real neighbours. At the border of the image it ends where the image ends, so a
network's own zero padding acts there as it does on the whole image. All windows of one image have the same
shape: they slide to fit instead of leaving a narrow rest.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in pixels of the source, half-open: what is read, and what of it is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def window(self) -> slice:
        """Where the tile is read."""
        return slice(self.start, self.stop)

    def crop(self, scale: int) -> slice:
        """The kept part inside the function's result for this tile."""
        return slice((self.keep_start - self.start) * scale, (self.keep_stop - self.start) * scale)

    def target(self, scale: int) -> slice:
        """Where the kept part is written."""
        return slice(self.keep_start * scale, self.keep_stop * scale)


def tile_spans(length: int, tile_size: int, overlap: int) -> list[Span]:
    """Split `length` pixels into equally long windows of at most `tile_size` pixels and the halo.

    Args:
        length: Height or width of the source.
        tile_size: Pixels kept of a tile, at most, where it has neighbours on both sides. A tile needs no halo
            at a border of the image and keeps up to `overlap` pixels more for each.
        overlap: Halo in pixels.

    Raises:
        ValueError: A length or tile size below 1, or a negative overlap.
    """
    if length < 1 or tile_size < 1 or overlap < 0:
        raise ValueError(
            f"expected length >= 1, tile_size >= 1 and overlap >= 0, got {length}, {tile_size} and {overlap}"
        )
    if length <= tile_size + 2 * overlap:
        return [Span(0, length, 0, length)]
    count = -(-(length - 2 * overlap) // tile_size)
    window = -(-(length - 2 * overlap) // count) + 2 * overlap
    starts = [index * (length - window) // (count - 1) for index in range(count)]
    edges = [0, *(start + overlap for start in starts[1:]), length]
    return [
        Span(start, start + window, keep_start, keep_stop)
        for start, keep_start, keep_stop in zip(starts, edges[:-1], edges[1:], strict=True)
    ]


@dataclass(frozen=True)
class Strip:
    """Some rows of an image that is worked on from top to bottom: those read, and those then done."""

    read: slice
    done: slice


def row_strips(height: int, rows: int, overlap: int, *, fewest: int = 1) -> list[Strip]:
    """Split `height` rows into strips of about equal height, at most `rows` done in each.

    What is done stays `overlap` rows behind what is read, until all is read: the first strip reads so many
    more, and the last so many less, but `fewest` at least: the rows that this leaves are done with it.

    Raises:
        ValueError: A height or number of rows below 1, or a negative overlap.
    """
    if height < 1 or min(rows, fewest) < 1 or overlap < 0:
        raise ValueError(
            "expected height >= 1, rows >= 1 and overlap >= 0, and fewest >= 1, "
            f"got {height}, {rows} and {overlap}, and fewest {fewest}"
        )
    count = min(-(-height // rows), max(1, height // fewest))
    starts = [height * index // count for index in range(1, count)]
    done = [0, *(start for start in starts if start + overlap + fewest <= height), height]
    read = [0, *(start + overlap for start in done[1:-1]), height]
    return [Strip(slice(*read[i : i + 2]), slice(*done[i : i + 2])) for i in range(len(read) - 1)]


def map_tiles(
    function: Callable[[torch.Tensor], torch.Tensor],
    source: torch.Tensor,
    target: torch.Tensor,
    *,
    tile_size: int,
    overlap: int,
    scale: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``function(source)`` into `target`, one tile at a time.

    Memory beyond `source` and `target` is that of one tile, whatever the image's size. The result equals
    ``function(source)`` as long as no output pixel depends on a source pixel further away than `overlap`.

    Args:
        function: From a window ``(N, C, h, w)`` of `source`, which it must not change, to
            ``(N, D, scale*h, scale*w)`` of any dtype on any device; ``Tensor.copy_`` converts it.
        source: ``(N, C, H, W)``, any dtype, strides and device.
        target: ``(N, D, scale*H, scale*W)``, likewise; overwritten.
        tile_size: See `tile_spans`.
        overlap: Halo in source pixels.
        scale: Target pixels per source pixel.
        progress: Called with the tiles done and the number of tiles after each one.

    Raises:
        ValueError: Sizes do not fit each other, or the function returned another size.
    """
    height, width = source.shape[-2:]
    if target.shape[-2:] != (scale * height, scale * width):
        expected = (scale * height, scale * width)
        raise ValueError(f"target must have size {expected}, got {tuple(target.shape[-2:])}")
    rows = tile_spans(height, tile_size, overlap)
    columns = tile_spans(width, tile_size, overlap)
    for index, (row, column) in enumerate((row, column) for row in rows for column in columns):
        window = source[..., row.window, column.window]
        result = function(window)
        expected = (scale * window.shape[-2], scale * window.shape[-1])
        if result.shape[-2:] != expected:
            raise ValueError(f"function must return size {expected}, got {tuple(result.shape[-2:])}")
        target[..., row.target(scale), column.target(scale)].copy_(
            result[..., row.crop(scale), column.crop(scale)]
        )
        if progress is not None:
            progress(index + 1, len(rows) * len(columns))
