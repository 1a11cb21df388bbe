"""Apply a function to an image tile by tile, with the result of the whole image.

Each tile is a window of the image. Inside the image a window reaches `overlap` pixels beyond the part that is
kept, so the kept part sees its real neighbours. At the border of the image it ends where the image ends, so a
network's own zero padding acts there as it does on the whole image. All windows of one image have the same
shape: they slide to fit instead of leaving a narrow rest.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Sides = tuple[int, int, int, int]
"""Pixels at the top, bottom, left and right."""


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

    @property
    def halo(self) -> tuple[int, int]:
        """How many pixels are read before and after those that are kept."""
        return self.keep_start - self.start, self.stop - self.keep_stop

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


def cut(x: torch.Tensor, sides: Sides) -> torch.Tensor:
    """``x`` ``(..., H, W)`` without the pixels of ``sides``; shares its memory."""
    top, bottom, left, right = sides
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def narrow(sides: Sides, most: int) -> Sides:
    """At most so many pixels at each side."""
    top, bottom, left, right = sides
    return min(top, most), min(bottom, most), min(left, most), min(right, most)


def less(sides: Sides, others: Sides) -> Sides:
    """The difference, side by side."""
    return sides[0] - others[0], sides[1] - others[1], sides[2] - others[2], sides[3] - others[3]


def map_tiles(
    function: Callable[..., torch.Tensor],
    source: torch.Tensor,
    target: torch.Tensor,
    *,
    tile_size: int,
    overlap: int,
    scale: int = 1,
    trims: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write ``function(source)`` into `target`, one tile at a time.

    Memory beyond `source` and `target` is that of one tile, whatever the image's size. The result equals
    ``function(source)`` as long as no output pixel depends on a source pixel further away than `overlap`.

    Args:
        function: From a window ``(N, C, h, w)`` of `source`, which it must not change, to
            ``(N, D, scale*h, scale*w)`` of any dtype on any device; ``Tensor.copy_`` converts it.
        source: ``(N, C, H, W)``, any dtype, strides and device.
        target: ``(N, D, scale*H, scale*W)``, likewise; overwritten. There may be more dimensions in the place
            of D, as in the function's result.
        tile_size: See `tile_spans`.
        overlap: Halo in source pixels.
        scale: Target pixels per source pixel.
        trims: Whether the function takes the window's halo (`Sides`) as its second argument and returns the
            kept part alone.
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
        halo = row.halo + column.halo
        result = function(window, halo) if trims else function(window)
        returned = cut(window, halo) if trims else window
        expected = (scale * returned.shape[-2], scale * returned.shape[-1])
        if result.shape[-2:] != expected:
            raise ValueError(f"function must return size {expected}, got {tuple(result.shape[-2:])}")
        kept = result if trims else result[..., row.crop(scale), column.crop(scale)]
        target[..., row.target(scale), column.target(scale)].copy_(kept)
        if progress is not None:
            progress(index + 1, len(rows) * len(columns))
