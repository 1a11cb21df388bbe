"""Results some rows at a time, for pictures whose result does not fit into memory."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from sr_hub.inference import (
    Precision,
    Progress,
    choose_dtype,
    default_tile_size,
    prepare_pixels,
    upscale_prepared,
)
from sr_hub.memory import with_shrinking_tiles
from sr_hub.row_reader import Rows


def upscale_strips(
    generator: torch.nn.Module,
    pixels: np.ndarray | Rows,
    *,
    tile_size: int | None = None,
    precision: Precision = "auto",
    strip_bytes: int = 2**28,
    progress: Progress | None = None,
    say: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
    """The rows of what `sr_hub.inference.upscale_picture` makes of the samples, from top to bottom.

    When memory is short, tiles get smaller and the work goes on.

    Args:
        generator: As in `sr_hub.upscale`.
        pixels: ``(H, W, C)`` as in `sr_hub.images.Picture`, or rows that are read when they are needed.
        tile_size: As in `sr_hub.upscale`.
        precision: Likewise.
        strip_bytes: Of the result, in each strip, at most; but a strip has at least one row of the input.
        progress: As in `sr_hub.upscale`.
        say: Called with the new tile size when memory is short.

    Returns:
        Strips ``(h, scale*W, C)`` of the dtype of `pixels`.

    Raises:
        MemoryError: If memory is short with the smallest tiles, too.
        ImageError: If rows cannot be read.
    """
    scale, halo = int(generator.scale), max(1, int(generator.receptive_radius))  # type: ignore[arg-type]  # ints
    tile_size = tile_size or tile_size_for(generator, pixels.dtype == np.uint8, precision)
    if isinstance(pixels, Rows):
        grey = pixels.is_grey()
    else:
        pixels, grey = prepare_pixels(pixels)
    height = pixels.shape[0]
    rows = strip_rows(pixels.shape, pixels.dtype.itemsize, scale, tile_size, strip_bytes)
    starts = range(0, height, rows)
    first_total = 0
    for index, start in enumerate(starts):
        stop = min(start + rows, height)
        top = max(0, start - halo)
        window = pixels[top : min(stop + halo, height)]
        window = np.require(window, requirements=["C", "W"])  # torch takes no others

        def report(done: int, total: int, index: int = index) -> None:
            nonlocal first_total
            first_total = first_total or total  # the measure of all, as others may have fewer
            if progress is not None:
                progress(index * first_total + done * first_total // total, len(starts) * first_total)

        def run(size: int, window: np.ndarray = window, report: Progress = report) -> np.ndarray:
            return upscale_prepared(generator, window, size, precision, report, grey=grey)

        result, tile_size = with_shrinking_tiles(run, tile_size, say)
        yield result[scale * (start - top) : scale * (stop - top)]
        del result


def strip_rows(shape: tuple[int, ...], item_size: int, scale: int, tile_size: int, strip_bytes: int) -> int:
    """Rows of the input in each strip: as many as fit, and as many as tiles have where more fit."""
    height, width, channels = shape
    fitting = strip_bytes // (scale * scale * width * channels * item_size)
    if fitting >= height:
        return height
    return max(1, min(fitting, max(tile_size, fitting // tile_size * tile_size)))


def tile_size_for(
    generator: torch.nn.Module, eight_bit: bool, precision: Precision, memory: int | None = None
) -> int:
    """The fastest tile size, or less where its tensors would take more than `memory` bytes."""
    device = next((weight.device for weight in generator.parameters()), torch.device("cpu"))
    dtype = choose_dtype(device, precision, eight_bit=eight_bit)
    size = default_tile_size(generator, device, dtype)
    halo = int(generator.receptive_radius)  # type: ignore[arg-type]  # an int
    while memory is not None and size > 16 and _tile_bytes(generator, size + 2 * halo, dtype) > memory:
        size = max(16, size * 3 // 4)
    return size


def _tile_bytes(generator: torch.nn.Module, side: int, dtype: torch.dtype) -> int:
    """Bytes of a tile's tensors: about ten of the trunk's width at once, and two of the result's size."""
    kernels = [weight for weight in generator.parameters() if weight.ndim == 4]
    channels = max((min(kernel.shape[:2]) for kernel in kernels), default=3)
    scale = int(generator.scale)  # type: ignore[arg-type]  # an int
    return side * side * (10 * channels * dtype.itemsize + 2 * 4 * 3 * scale * scale)
