"""Where the two ends of a family differ, and what they draw around a point."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image, ImageChops

from sr_hub.comparison import Comparison, middle_of, to_8_bits
from sr_hub.images import Picture
from sr_hub.inference import prepare_pixels, upscale_prepared
from sr_hub.pixels import join_alpha, round_to
from sr_hub.streaming import upscale_strips

LOUPE_SIDE = 480
"""Pixels of the result a side of the loupe's images, where the picture has as many."""

_LARGEST_WINDOW = 160  # LR pixels a side, for results that are hardly larger than their input
_SPOT = 24  # LR pixels a side over which the difference is averaged to find the spot

Point = tuple[float, float]
"""Across and down, each from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Loupe:
    """The same part of a picture enlarged in several ways.

    Attributes:
        images: Bicubic first, then the result of each generator, 8 bits, all of one size.
        box: Left, top, right and bottom of the part, as shares of the picture.
        focus: The point asked for, in pixels of the images.
    """

    images: tuple[Image.Image, ...]
    box: tuple[float, float, float, float]
    focus: tuple[float, float]


def look(
    lr: Picture,
    generators: list[torch.nn.Module],
    point: Point,
    factor: float,
    original: Picture | None = None,
) -> Loupe:
    """What bicubic and each generator make of the surroundings of a point.

    Only they are computed, with neighbours as far as a generator sees: as the whole result shows them.

    Args:
        lr: The picture.
        generators: All of one scale.
        point: The centre, finite; nearer to the border the part is moved inside.
        factor: Pixels of the result per LR pixel, at which the images are shown.
        original: What the picture was before it was shrunk, ``scale`` times as large; comes last.

    Raises:
        ValueError: If the point is no point.
    """
    if not all(math.isfinite(share) for share in point):
        raise ValueError(f"point must be two shares of the picture, got {point}")
    point = (min(max(point[0], 0.0), 1.0), min(max(point[1], 0.0), 1.0))
    height, width = lr.pixels.shape[:2]
    window = max(1, min(_LARGEST_WINDOW, round(LOUPE_SIDE / factor)))
    (left, right), (top, bottom) = (
        _part(share, side, window) for share, side in zip(point, (width, height), strict=True)
    )
    size = (max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor)))
    images = [
        to_8_bits(lr).resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom)),
        *(_enlarged(lr, generator, (left, top, right, bottom), size) for generator in generators),
    ]
    if original is not None:
        times = original.pixels.shape[1] // width
        part = original.pixels[top * times : bottom * times, left * times : right * times]
        images.append(_sized(replace(original, pixels=part), size))
    focus = (
        (point[0] * width - left) * size[0] / (right - left),
        (point[1] * height - top) * size[1] / (bottom - top),
    )
    return Loupe(tuple(images), (left / width, top / height, right / width, bottom / height), focus)


def difference_map(
    lr: Picture,
    fidelity: torch.nn.Module,
    detail: torch.nn.Module,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """How far the two ends of a family lie apart at each pixel of the input.

    Args:
        lr: The picture; its alpha does not count.
        fidelity: The pixel-loss end.
        detail: The GAN end, of the same scale.
        progress: Called with the tiles done and the number of tiles, of both ends; may raise to stop.

    Returns:
        ``(H, W)`` float32: the mean of ``|detail - fidelity|`` over colours and the pixels of the result that
        belong to an input pixel, in levels of 255.
    """
    pixels = np.ascontiguousarray(round_to(np.uint8, join_alpha(lr.pixels)))
    scale = int(detail.scale)  # type: ignore[arg-type]  # an int
    done = [0, 0]

    def report(end: int) -> Callable[[int, int], None]:
        def tell(count: int, total: int) -> None:
            done[end] = count
            if progress is not None:
                progress(sum(done), 2 * total)

        return tell

    strips = zip(
        upscale_strips(fidelity, pixels, strip_bytes=2**26, progress=report(0)),
        upscale_strips(detail, pixels, strip_bytes=2**26, progress=report(1)),
        strict=True,
    )
    return np.concatenate([_mean_difference(one, other, scale) for one, other in strips])


def difference_from_bicubic(shown: Comparison, lr: Picture) -> np.ndarray:
    """The same of a result and bicubic, ``(H, W)`` float32, as they are shown, for a model with one end."""
    apart = ImageChops.difference(shown.sr.convert("RGB"), shown.bicubic.convert("RGB")).convert("L")
    small = apart.resize(lr.pixels.shape[1::-1], Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def place_of_largest(differences: np.ndarray) -> Point:
    """The centre of the part, of a few input pixels, over which the map ``(H, W)`` is largest on average."""
    height, width = differences.shape
    rows, columns = min(_SPOT, height), min(_SPOT, width)
    sums = np.pad(differences.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    inside = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    top, left = np.unravel_index(np.argmax(inside), inside.shape)
    return (float(left) + columns / 2) / width, (float(top) + rows / 2) / height


def find_place(lr: Picture, fidelity: torch.nn.Module, detail: torch.nn.Module) -> Point:
    """Where in the middle of a picture the two ends of a family differ most, as shares of the whole."""
    middle, (top, left) = middle_of(lr)
    x, y = place_of_largest(difference_map(middle, fidelity, detail))
    (rows, columns), (height, width) = middle.pixels.shape[:2], lr.pixels.shape[:2]
    return (left + x * columns) / width, (top + y * rows) / height


def overlay(differences: np.ndarray, full: float = 32.0) -> Image.Image:
    """The map ``(H, W)`` as a colour that covers more where it is larger, fully from `full` levels on."""
    share = np.clip(differences / full, 0, 1)[..., None]
    calm, strong = np.array([255, 196, 0], np.float32), np.array([255, 0, 90], np.float32)
    colors = calm + (strong - calm) * share
    alpha = 235 * np.sqrt(share) * (differences[..., None] > 1)  # one level is rounding
    return Image.fromarray(np.concatenate([colors, alpha], axis=2).round().astype(np.uint8))


def _part(share: float, side: int, window: int) -> tuple[int, int]:
    """Start and stop of a window around a share of a side, inside it."""
    length = min(window, side)
    start = min(max(0, round(share * side - length / 2)), side - length)
    return start, start + length


def _enlarged(
    lr: Picture, generator: torch.nn.Module, part: tuple[int, int, int, int], size: tuple[int, int]
) -> Image.Image:
    left, top, right, bottom = part
    halo, scale = max(1, int(generator.receptive_radius)), int(generator.scale)  # type: ignore[arg-type]  # ints
    pixels, grey = prepare_pixels(lr.pixels)  # of the whole: a colour picture may be grey in this part
    from_row, from_column = max(0, top - halo), max(0, left - halo)
    around = pixels[from_row : bottom + halo, from_column : right + halo].copy()  # torch wants to write
    sr = upscale_prepared(generator, around, None, "auto", None, grey=grey)
    rows = slice(scale * (top - from_row), scale * (bottom - from_row))
    columns = slice(scale * (left - from_column), scale * (right - from_column))
    return _sized(replace(lr, pixels=sr[rows, columns]), size)


def _sized(picture: Picture, size: tuple[int, int]) -> Image.Image:
    image = to_8_bits(picture)
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


def _mean_difference(one: np.ndarray, other: np.ndarray, scale: int) -> np.ndarray:
    """``(scale*h, scale*w, C)`` uint8 of both ends to ``(h, w)``."""
    apart = np.maximum(one, other) - np.minimum(one, other)  # uint8 holds it
    height, width = apart.shape[0] // scale, apart.shape[1] // scale
    blocks = apart.reshape(height, scale, width, scale, -1)
    return blocks.mean(axis=(1, 3, 4), dtype=np.float32)
