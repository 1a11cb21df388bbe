"""Any picture to any size, some rows at a time: bicubic, antialiased, equal to MATLAB's ``imresize``.

Each row of the result depends on its own place only, so the result does not depend on the strips.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class _Taps:
    """For each of n new pixels, which old ones it is made of and by what weights, ``(n, taps)``."""

    indices: np.ndarray
    weights: np.ndarray


def resize_rows(
    strips: Iterable[np.ndarray], size: tuple[int, int], new_size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """The strips of a picture of another size.

    Colours with alpha are weighted by it, so that what is transparent does not bleed.

    Args:
        strips: Rows of the picture from top to bottom, ``(h, W, C)``, uint8, uint16 or float in [0, 1], C as
            in `sr_hub.images.Picture`.
        size: ``(H, W)`` of the picture.
        new_size: Height and width of the result.

    Returns:
        Strips ``(h, new W, C)`` of the same dtype, rounded and clamped.
    """
    rows, columns = (_taps(old, new) for old, new in zip(size, new_size, strict=True))
    # Not each row's own last one: mirrored at the edge of a tiny picture, a row may need more than the next.
    last = np.maximum.accumulate(rows.indices.max(axis=1))
    least = np.minimum.accumulate(rows.indices.min(axis=1)[::-1])[::-1]  # of this row and all after it
    pieces: list[np.ndarray] = []  # rows from `first` on that are still needed
    count = first = done = 0
    dtype: np.dtype = np.dtype(np.uint8)
    for strip in _thinner(strips):
        dtype = strip.dtype
        pieces.append(_resize_columns(_premultiply(strip), columns))
        count += len(strip)
        ready = int(np.searchsorted(last, first + count))
        if ready == done:
            continue
        held = np.concatenate(pieces)
        for start in range(done, ready, _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, ready)
            part = _Taps(rows.indices[start:stop] - first, rows.weights[start:stop])
            yield _finish(_weigh(held, part), dtype)
        done = ready
        if done < new_size[0]:
            drop = int(least[done]) - first
            pieces, first = [held[drop:].copy()], first + drop
            count = len(pieces[0])


def _thinner(strips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same rows, few at a time: in float32 they take four times the memory of 8 bits, and twice over."""
    for strip in strips:
        for top in range(0, len(strip), _ROWS_AT_ONCE):
            yield strip[top : top + _ROWS_AT_ONCE]


def _taps(old: int, new: int) -> _Taps:
    scale = new / old
    reach = 2 / min(scale, 1.0)  # of the kernel, in old pixels: wider when shrinking, against aliasing
    centers = (np.arange(new) + 0.5) / scale - 0.5
    count = int(np.ceil(2 * reach)) + 2
    indices = np.floor(centers - reach).astype(np.int64)[:, None] + np.arange(count)
    weights = _cubic((centers[:, None] - indices) * min(scale, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    mirrored = indices % (2 * old)
    mirrored = np.where(mirrored < old, mirrored, 2 * old - 1 - mirrored)
    kept = (weights != 0).any(axis=0)
    mirrored = np.where(weights != 0, mirrored, mirrored[np.arange(new), weights.argmax(axis=1)][:, None])
    return _Taps(mirrored[:, kept], weights[:, kept].astype(np.float32))


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _weigh(samples: np.ndarray, taps: _Taps) -> np.ndarray:
    """``(h, ...)`` to ``(n, ...)`` along the first axis."""
    result = np.zeros((len(taps.indices), *samples.shape[1:]), np.float32)
    for tap in range(taps.indices.shape[1]):
        result += samples[taps.indices[:, tap]] * taps.weights[:, tap, None, None]
    return result


def _resize_columns(samples: np.ndarray, columns: _Taps) -> np.ndarray:
    return np.ascontiguousarray(_weigh(samples.transpose(1, 0, 2), columns).transpose(1, 0, 2))


def _premultiply(strip: np.ndarray) -> np.ndarray:
    full = 1.0 if strip.dtype.kind == "f" else float(np.iinfo(strip.dtype).max)
    samples = strip.astype(np.float32) / np.float32(full)
    if strip.shape[2] in (2, 4):
        samples[..., :-1] *= samples[..., -1:]
    return samples


def _finish(samples: np.ndarray, dtype: "np.dtype") -> np.ndarray:
    if samples.shape[2] in (2, 4):
        alpha = samples[..., -1:]
        samples[..., :-1] = np.where(alpha > 0, samples[..., :-1] / np.maximum(alpha, 1e-6), 0)
    samples = samples.clip(0, 1)
    if dtype.kind == "f":
        return samples.astype(dtype)
    return np.rint(samples * np.float32(np.iinfo(dtype).max)).astype(dtype)
