"""Image files and PIL images to and from arrays of samples, with everything else a picture carries."""

import contextlib
import functools
import importlib
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sr_hub import deep_color
from sr_hub.exif import read_dpi, read_exif, rescale_exif, turn_upright
from sr_hub.pixels import Decoded, pixels_from_pil, round_to
from sr_hub.png_chunks import read_color_chunks

MAX_PIXELS = 178_956_970
"""Largest input, in pixels: Pillow's own limit against decompression bombs."""

FIRST_FRAME_ONLY = "only the first of its frames is used"
"""A notice of `Picture`."""

PLUGINS = dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif") | {".jxl": "pillow-jxl-plugin"}
"""Suffixes of pictures that Pillow opens with the help of another package, and its name."""


class ImageError(ValueError):
    """A picture cannot be read or written. The message is one sentence that names the file."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Samples of an image, upright, and what belongs to it.

    Attributes:
        pixels: ``(H, W, C)``; C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha (not premultiplied).
            uint8, uint16, or float32 in [0, 1].
        format: Pillow's name of the file format it came from.
        icc_profile: Colour profile of the samples.
        exif: EXIF block without orientation and thumbnail.
        xmp: XMP packet, its orientation reset.
        dpi: Horizontal and vertical pixels per inch.
        png_color: Chunks of a PNG file that say what its samples mean, name and data.
        value_range: What 0 and 1 of float samples stand for in the file.
        notices: What reading could not keep as it was, in words for the user.
    """

    pixels: np.ndarray
    format: str | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    png_color: tuple[tuple[bytes, bytes], ...] = ()
    value_range: tuple[float, float] = (0.0, 1.0)
    notices: tuple[str, ...] = ()

    def enlarged(self, pixels: np.ndarray) -> "Picture":
        """The same picture with more `pixels`: the printed size stays, size tags follow."""
        return replace(self.described_as(*pixels.shape[:2]), pixels=pixels)

    def described_as(self, height: int, width: int) -> "Picture":
        """The same samples, and what is said of them for a picture of another size."""
        scale = (width / self.pixels.shape[1], height / self.pixels.shape[0])
        dpi = (self.dpi[0] * scale[0], self.dpi[1] * scale[1]) if self.dpi else None
        exif = rescale_exif(self.exif, width, height, scale) if self.exif else None
        return replace(self, dpi=dpi, exif=exif)


def read_picture(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> Picture:
    """Read an image file, the first frame of several.

    Args:
        path: The file. HEIC and JPEG XL need ``pillow-heif`` and ``pillow-jxl-plugin``.
        max_pixels: Largest picture that is decoded, against decompression bombs. Default: `MAX_PIXELS`.

    Raises:
        ImageError: If there is no such file, or it is no image, broken, or too large.
    """
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    with open_image(path, max_pixels=max_pixels) as image:
        return _from_pil(image, max_pixels, Path(path))


@contextlib.contextmanager
def open_image(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """A PIL image of a file, not decoded yet.

    Args:
        path: As in `read_picture`.
        max_pixels: Likewise.

    Raises:
        ImageError: As in `read_picture`, and in the place of what the block raises.
    """
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    path = Path(path)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "a pipe or device" if path.exists() else "no such file"
        raise ImageError(f"{path}: expected an image file, got {got}")
    try:
        with _bomb_limit.at(max_pixels), Image.open(path, formats=_readable_formats()) as image:
            yield image
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        what = "an empty file" if path.stat().st_size == 0 else "a file of unknown or broken format"
        if (plugin := PLUGINS.get(path.suffix.lower())) and plugin not in _installed():
            what = f"one that needs a plugin: pip install {plugin}"
        raise ImageError(f"{path}: expected an image file, got {what}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: expected at most {max_pixels:,} pixels, got more") from error
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise ImageError(
            f"{path}: expected a whole image file, got a broken one: {reason_of(error)}"
        ) from error


def from_pil(image: Image.Image) -> Picture:
    """The samples of a PIL image of any mode, upright, and its metadata.

    Raises:
        ImageError: If its file is broken or it is above `MAX_PIXELS`.
    """
    try:
        return _from_pil(image, MAX_PIXELS)
    except ImageError:
        raise
    except Exception as error:  # a lazily opened image is decoded only now
        raise ImageError(
            f"expected an image that can be decoded, got a broken one: {reason_of(error)}"
        ) from error


def to_pil(picture: Picture) -> Image.Image:
    """A PIL image of mode L, LA, RGB, RGBA, I;16 or F, its metadata in ``info``.

    16-bit samples with colour or alpha are rounded to 8 bits, for which alone Pillow has modes.
    """
    pixels = picture.pixels
    if pixels.shape[2] == 1 and pixels.dtype == np.float32:
        pixels = restore_range(picture, pixels)
    elif pixels.shape[2] > 1 or pixels.dtype != np.uint16:
        pixels = round_to(np.uint8, pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.info.update({key: value for key, value in metadata_of(picture).items() if value})
    return image


def restore_range(picture: Picture, pixels: np.ndarray) -> np.ndarray:
    """Float samples as they stand in the picture's file; others unchanged."""
    low, high = picture.value_range
    if pixels.dtype != np.float32 or (low, high) == (0.0, 1.0):
        return pixels
    if high - low > float(np.finfo(np.float32).max):  # the span alone passes float32, its samples do not
        return (pixels.astype(np.float64) * (high - low) + low).astype(np.float32)
    return pixels * np.float32(high - low) + np.float32(low)


def metadata_of(picture: Picture) -> dict[str, Any]:
    """What a picture carries beside its samples, by the names that encoders use."""
    return {name: getattr(picture, name) for name in ("icc_profile", "exif", "xmp", "dpi")}


class _BombLimit:
    """Pillow's own limit, which decoders of nested pictures ask, while at least one thread reads.

    It is one for the whole process, as are the filters of warnings: the widest that is asked for holds, and
    what was there before comes back when the last thread is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: list[int] = []
        self._before: int | None = None
        self._warnings = warnings.catch_warnings()

    @contextlib.contextmanager
    def at(self, pixels: int) -> Iterator[None]:
        """While the block runs, pictures of `pixels` can be opened."""
        with self._lock:
            if not self._asked:
                self._before, self._warnings = Image.MAX_IMAGE_PIXELS, warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            self._asked.append(pixels)
            self._set()
        try:
            yield
        finally:
            with self._lock:
                self._asked.remove(pixels)
                if self._asked:
                    self._set()
                else:
                    Image.MAX_IMAGE_PIXELS = self._before
                    self._warnings.__exit__(None, None, None)

    def _set(self) -> None:
        Image.MAX_IMAGE_PIXELS = -(-max(self._asked) // 2)  # a warning there, an error at twice as many


_bomb_limit = _BombLimit()


def _installed() -> set[str]:
    modules = {"pillow-heif": "pillow_heif", "pillow-jxl-plugin": "pillow_jxl"}
    return {name for name, module in modules.items() if module in sys.modules}


@functools.cache
def load_plugins() -> None:
    """Let Pillow open what the plugins of `PLUGINS` decode, where they are installed."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")  # registers itself


def _readable_formats() -> list[str]:
    Image.init()
    load_plugins()
    return [
        name for name in Image.OPEN if name not in ("EPS", "WMF")
    ]  # drawings; EPS would start Ghostscript


def picture_of_header(
    image: Image.Image, path: Path, shape: tuple[int, int, int], dtype: "np.dtype"
) -> Picture | None:
    """What an opened image carries, before it is decoded: all samples are zero and take no memory.

    Args:
        image: Not decoded.
        path: Its file.
        shape: ``(H, W, C)``.
        dtype: Of the samples.

    Returns:
        None if the image has to be turned to be upright.
    """
    pixels = np.broadcast_to(np.zeros((), dtype), shape)
    picture, orientation = _described(image, path, Decoded(pixels, image.info.get("icc_profile") or None), [])
    return picture if orientation == 1 else None


def _from_pil(image: Image.Image, max_pixels: int, path: Path | None = None) -> Picture:
    check_size(image, max_pixels)
    stored = deep_color.raw_mode(image)
    notices = []
    if getattr(image, "is_animated", False):  # counting the frames would decode them all
        notices.append(FIRST_FRAME_ONLY)
    image.load()
    decoded = pixels_from_pil(_with_scaled_key(image, stored))
    pixels = decoded.pixels
    deep = deep_color.read_deep(path, image, stored, _readable_formats()) if path and stored else None
    if deep is not None:
        pixels, key = deep, image.info.get("transparency")
        if isinstance(key, tuple):
            opaque = (pixels != np.array(key, np.uint16)).any(axis=2, keepdims=True)
            pixels = np.concatenate([pixels, opaque * np.uint16(65535)], axis=2)
    elif stored and ";16" in stored and pixels.dtype == np.uint8:
        notices.append("its 16-bit samples are rounded to 8 bits")
    if deep_color.is_white_zero(image):
        pixels = 65535 - pixels
    picture, orientation = _described(image, path, replace(decoded, pixels=pixels), notices)
    return replace(picture, pixels=np.ascontiguousarray(turn_upright(pixels, orientation)))


def _with_scaled_key(image: Image.Image, stored: str | None) -> Image.Image:
    """The image; of 2 or 4 bits a copy, as Pillow brings its samples to 8 bits, but not the clear one."""
    key, step = image.info.get("transparency"), {"L;2": 85, "L;4": 17}.get(stored or "")
    if step is None or not isinstance(key, int):
        return image
    image = image.copy()
    image.info["transparency"] = step * key
    return image


def _described(
    image: Image.Image, path: Path | None, decoded: Decoded, notices: list[str]
) -> tuple[Picture, int]:
    """The samples as stored, with what belongs to them once they are upright, and their orientation."""
    png_color: tuple[tuple[bytes, bytes], ...] = ()
    if path and image.format == "PNG" and decoded.icc_profile is None:  # a profile says it better
        with open(path, "rb") as file:
            png_color = read_color_chunks(file)
    exif, orientation, unreadable = exif_of(image)
    xmp = image.info.get("xmp")
    dpi = read_dpi(image)
    if dpi and orientation in (5, 6, 7, 8):
        dpi = (dpi[1], dpi[0])
    picture = Picture(
        pixels=decoded.pixels,
        format=image.format,
        icc_profile=decoded.icc_profile,
        exif=exif,
        xmp=re.sub(rb'(tiff:Orientation(="|>))\d', rb"\g<1>1", xmp) if isinstance(xmp, bytes) else None,
        dpi=dpi,
        png_color=png_color,
        value_range=decoded.value_range,
        notices=(*notices, *decoded.notices, *unreadable),
    )
    return picture, orientation


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Refuse an opened image of no or of too many pixels.

    Raises:
        ImageError: If it is one.
    """
    if image.width * image.height > max_pixels:
        raise ImageError(f"expected at most {max_pixels:,} pixels, got {image.width}x{image.height}")
    if image.width * image.height == 0:
        raise ImageError(f"expected at least one pixel, got {image.width}x{image.height}")


def exif_of(image: Image.Image) -> tuple[bytes | None, int, list[str]]:
    """What `read_exif` gives; of a broken block nothing and upright, and a sentence on that."""
    try:
        return *read_exif(image), []
    except Exception as error:  # EXIF of the wild; the picture itself is whole
        return None, 1, [f"its EXIF block is {reason_of(error)} and is dropped"]


def reason_of(error: BaseException) -> str:
    """What went wrong with a file, in words that follow "is" or a colon."""
    text = " ".join(str(error).split()).rstrip(".")
    return (
        text
        if text and isinstance(error, OSError | ValueError)
        else f"broken ({type(error).__name__}: {text})"
    )
