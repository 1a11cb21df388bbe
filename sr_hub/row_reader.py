"""Large pictures read some rows at a time, by pyvips where it is installed: never held whole."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from sr_hub.deep_color import raw_mode
from sr_hub.images import MAX_PIXELS, ImageError, Picture, check_size, open_image, picture_of_header
from sr_hub.pixels import is_grey
from sr_hub.png_chunks import has_late_text

_DEEP = ("16", "16B", "16L", "16N")
_CHANNELS = {"L": 1, "RGB": 3} | {f"I;{bits}": 1 for bits in _DEEP} | {f"RGB;{bits}": 3 for bits in _DEEP}
"""Channels by the layout that Pillow names."""
_DTYPES: dict[str, np.dtype] = {"uchar": np.dtype(np.uint8), "ushort": np.dtype(np.uint16)}
_ROWS_AT_ONCE = 64
_BLACK_IS_ZERO, _RGB, _PHOTOMETRIC = 1, 2, 262


class Rows:
    """The rows of a picture file, which are read when they are asked for, from top to bottom.

    Args:
        path: The file.
        shape: ``(H, W, C)``.
        dtype: Of the samples, uint8 or uint16.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int], dtype: "np.dtype") -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self._held, self._first, self._next = np.empty((0, *shape[1:]), dtype), 0, 0
        self._region: Any = None

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Rows ``(h, W, C)`` from `start` to `stop`. Rows before those of the last call are decoded anew.

        Raises:
            ImageError: If the file is broken there.
        """
        start, stop = rows.start, min(rows.stop, self.shape[0])
        if self._region is None or start < self._first:
            self._start()
        parts = [self._held[start - self._first :]] if start < self._next else []
        for part in self._read(stop):
            if self._next > start:
                parts.append(part[max(0, start - (self._next - len(part))) :])
        self._held, self._first = np.concatenate(parts), start
        return self._held[: stop - start]

    def is_grey(self) -> bool:
        """As `sr_hub.pixels.is_grey`."""
        tops = range(0, self.shape[0], _ROWS_AT_ONCE)
        return self.shape[2] == 1 or all(is_grey(self[top : top + _ROWS_AT_ONCE]) for top in tops)

    def _start(self) -> None:
        self._held, self._first, self._next = np.empty((0, *self.shape[1:]), self.dtype), 0, 0
        try:
            self._region = _pyvips().Region.new(_open(self.path))
        except _pyvips().Error as error:
            raise _broken(self.path, error) from error

    def _read(self, stop: int) -> Iterator[np.ndarray]:
        """What follows, up to row `stop`."""
        while self._next < stop:
            count = min(_ROWS_AT_ONCE, self.shape[0] - self._next)
            try:
                data = self._region.fetch(0, self._next, self.shape[1], count)
            except _pyvips().Error as error:
                raise _broken(self.path, error) from error
            self._next += count
            yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def open_rows(
    path: str | os.PathLike[str], *, least_pixels: int = 0, max_pixels: int | None = None
) -> tuple[Picture, Rows] | None:
    """A picture without its samples, and its rows; None where it has to be read whole.

    Rows can be read from upright JPEG, PNG and TIFF files without alpha, of 8 or 16 bits per sample, where
    pyvips is installed. They are those that `sr_hub.images.read_picture` gives.

    Args:
        path: The file.
        least_pixels: Smaller pictures are to be read whole.
        max_pixels: As in `sr_hub.images.read_picture`.

    Raises:
        ImageError: As in `sr_hub.images.read_picture`, but for what is broken in the samples.
    """
    path = Path(path)
    with open_image(path, max_pixels=max_pixels) as image:
        check_size(image, MAX_PIXELS if max_pixels is None else max_pixels)
        channels = _CHANNELS.get(raw_mode(image) or "")
        shape = (image.height, image.width, channels or 0)
        if image.width * image.height < least_pixels or channels is None or not _is_plain(image, path):
            return None
        if (pyvips := _pyvips()) is None:
            return None
        try:
            rows = _open(path)
        except (pyvips.Error, UnicodeEncodeError):  # the latter of a name that is no UTF-8
            return None  # which Pillow may read, or tell why not
        if (rows.height, rows.width, rows.bands) != shape or rows.format not in _DTYPES:
            return None
        dtype = _DTYPES[rows.format]
        picture = picture_of_header(image, path, shape, dtype)
    return None if picture is None else (picture, Rows(path, shape, dtype))


def _is_plain(image: Image.Image, path: Path) -> bool:
    """Whether Pillow and pyvips give the same samples, and the header tells all that belongs to them."""
    if image.has_transparency_data or getattr(image, "is_animated", False):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2.get(_PHOTOMETRIC) in (_BLACK_IS_ZERO, _RGB)
    if image.format == "PNG":
        return not image.info.get("interlace") and not has_late_text(path)
    return image.format == "JPEG"


def _open(path: Path) -> Any:
    return _pyvips().Image.new_from_file(os.fspath(path), access="sequential", fail_on="error")


def _broken(path: Path, error: Exception) -> ImageError:
    reason = " ".join(str(error).split())
    return ImageError(f"{path}: expected a whole image file, got a broken one: {reason}")


def _pyvips() -> Any:
    try:
        return importlib.import_module("pyvips")
    except (ImportError, OSError):  # or its library is missing
        return None
