"""Image files and PIL images to and from arrays of samples, with everything else a picture carries."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from sr_hub import deep_color
from sr_hub.exif import read_exif, rescale_exif, tiff_entries, turn_upright
from sr_hub.pixels import join_alpha, pixels_from_pil, round_to
from sr_hub.whole_files import whole_file

MAX_PIXELS = 178_956_970
"""Largest input, in pixels: Pillow's own limit against decompression bombs."""

_LONGEST_SEGMENT = 65502  # of JPEG, less its own names


class ImageError(ValueError):
    """A picture cannot be read or written. The message is one sentence that names the file."""


@dataclass(frozen=True)
class Format:
    """What a file format that can be written holds."""

    name: str
    alpha: bool = False
    deep: bool = False
    metadata: bool = False
    largest_side: int = 2**31 - 1
    options: tuple[tuple[str, Any], ...] = ()


_FORMATS = {
    known.name: known
    for known in (
        Format("PNG", alpha=True, deep=True, metadata=True),
        Format("TIFF", alpha=True, deep=True, metadata=True),
        Format("JPEG", metadata=True, largest_side=65500, options=(("quality", 95), ("subsampling", 0))),
        Format("WEBP", alpha=True, metadata=True, largest_side=16383, options=(("quality", 95),)),
        Format("AVIF", alpha=True, metadata=True, largest_side=65536, options=(("quality", 90),)),
        Format("JPEG2000", alpha=True),
        Format("GIF", alpha=True, largest_side=65535),
        Format("BMP"),
        Format("TGA", alpha=True, largest_side=65535),
        Format("PPM"),
    )
}


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
        value_range: What 0 and 1 of float samples stand for in the file.
        notices: What reading could not keep as it was, in words for the user.
    """

    pixels: np.ndarray
    format: str | None = None
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    notices: tuple[str, ...] = ()

    def enlarged(self, pixels: np.ndarray) -> "Picture":
        """The same picture with more `pixels`: the printed size stays, size tags follow."""
        height, width = pixels.shape[:2]
        scale = (width / self.pixels.shape[1], height / self.pixels.shape[0])
        dpi = (self.dpi[0] * scale[0], self.dpi[1] * scale[1]) if self.dpi else None
        exif = rescale_exif(self.exif, width, height, scale) if self.exif else None
        return replace(self, pixels=pixels, dpi=dpi, exif=exif)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read an image file, the first frame of several.

    Raises:
        ImageError: If there is no such file, or it is no image, broken, or above `MAX_PIXELS`.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(
            f"{path}: expected an image file, got {'a folder' if path.is_dir() else 'no such file'}"
        )
    formats = _readable_formats()
    try:
        with Image.open(path, formats=formats) as image:
            return _from_pil(image, path, formats)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    except UnidentifiedImageError as error:
        what = "an empty file" if path.stat().st_size == 0 else "a file of unknown or broken format"
        raise ImageError(f"{path}: expected an image file, got {what}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: expected at most {MAX_PIXELS:,} pixels, got more") from error
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise ImageError(f"{path}: expected a whole image file, got one that is {_reason(error)}") from error


def from_pil(image: Image.Image) -> Picture:
    """The samples of a PIL image of any mode, upright, and its metadata.

    Raises:
        ImageError: If its file is broken or it is above `MAX_PIXELS`.
    """
    try:
        return _from_pil(image)
    except ImageError:
        raise
    except Exception as error:  # a lazily opened image is decoded only now
        raise ImageError(
            f"expected an image that can be decoded, got one that is {_reason(error)}"
        ) from error


def to_pil(picture: Picture) -> Image.Image:
    """A PIL image of mode L, LA, RGB, RGBA, I;16 or F, its metadata in ``info``.

    16-bit samples with colour or alpha are rounded to 8 bits, for which alone Pillow has modes.
    """
    pixels = picture.pixels
    if pixels.shape[2] == 1 and pixels.dtype == np.float32:
        pixels = _restore_range(picture, pixels)
    elif pixels.shape[2] > 1 or pixels.dtype != np.uint16:
        pixels = round_to(np.uint8, pixels)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.info.update({key: value for key, value in _metadata(picture).items() if value})
    return image


def writable_format(path: str | os.PathLike[str]) -> Format:
    """The format a file of this name is written in.

    Raises:
        ImageError: If the suffix names no format that can be written.
    """
    suffix = Path(path).suffix.lower()
    name = Image.registered_extensions().get(suffix, "")
    if name not in _FORMATS or name not in Image.SAVE:
        raise ImageError(
            f"{path}: expected a suffix of {', '.join(sorted(_FORMATS))}, got {suffix or 'none'}"
        )
    return _FORMATS[name]


def check_fits(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Check that a picture of this size can be written to `path`.

    Raises:
        ImageError: If its format cannot hold that many pixels a side, or cannot be written.
    """
    known = writable_format(path)
    if max(height, width) > known.largest_side:
        raise ImageError(
            f"{path}: {known.name} holds at most {known.largest_side} pixels a side, got {width}x{height}; "
            "choose PNG or TIFF"
        )


def cannot_keep(picture: Picture, path: str | os.PathLike[str]) -> list[str]:
    """What a file of this name cannot hold of the picture, in words for the user."""
    known = writable_format(path)
    grey_float = known.name == "TIFF" and picture.pixels.shape[2] == 1
    lost = []
    if picture.pixels.dtype == np.uint16 and not known.deep:
        lost.append(f"{known.name} holds 8 bits per sample: 16-bit samples are rounded")
    if picture.pixels.dtype == np.float32 and not grey_float:
        lost.append(f"{known.name} is written with whole numbers: float samples are rounded")
    if picture.pixels.shape[2] in (2, 4) and not known.alpha:
        lost.append(f"{known.name} holds no alpha: the picture is laid on white")
    if known.name == "GIF" and picture.pixels.shape[2] > 1:
        lost.append("GIF holds 256 colours, each visible or not: the others are dithered")
    if not known.metadata and (picture.icc_profile or picture.exif or picture.xmp):
        lost.append(f"{known.name} holds no colour profile, EXIF or XMP: they are dropped")
    if _too_long(picture, known):
        lost.append(f"{' and '.join(_too_long(picture, known))} too long for {known.name}: dropped")
    return lost


def write_picture(picture: Picture, path: str | os.PathLike[str]) -> None:
    """Write a picture to `path`, whole or not at all, in the format of its suffix.

    Raises:
        ImageError: If the format is unknown or cannot hold the size, or the file cannot be written.
    """
    path = Path(path)
    check_fits(path, *picture.pixels.shape[:2])
    try:
        with whole_file(path) as file:
            _encode(picture, writable_format(path), file)
    except Exception as error:  # encoders raise nearly anything too
        raise ImageError(f"{path}: cannot be written: {_reason(error)}") from error


def _encode(picture: Picture, known: Format, file: BinaryIO) -> None:
    pixels = picture.pixels
    if not known.alpha:
        pixels = join_alpha(pixels)
    grey_float = pixels.dtype == np.float32 and known.name == "TIFF" and pixels.shape[2] == 1
    if not grey_float and pixels.dtype != np.uint8:
        pixels = round_to(np.uint16 if known.deep else np.uint8, pixels)
    dropped: dict[str, Any] = dict.fromkeys(_too_long(picture, known))
    picture = replace(picture, pixels=pixels, **dropped)
    metadata = _metadata(picture)
    if known.name == "TIFF":
        if pixels.shape[2] == 2 and pixels.dtype == np.uint16:
            pixels = pixels[..., [0, 0, 0, 1]]  # few programs, and not Pillow, read 16-bit grey with alpha
        deep_color.write_tiff(file, _restore_range(picture, pixels), _tiff_tags(picture))
        return
    if pixels.dtype == np.uint16 and pixels.shape[2] > 1:
        deep_color.write_png(file, pixels, **metadata)
        return
    image = to_pil(picture)
    options: dict[str, Any] = {key: value for key, value in metadata.items() if value} | dict(known.options)
    if known.name == "PNG" and picture.xmp:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", picture.xmp.decode("utf-8", "replace"))
    image.save(file, format=known.name, **options)


def _too_long(picture: Picture, known: Format) -> list[str]:
    """Metadata that exceeds a JPEG segment."""
    if known.name != "JPEG":
        return []
    return [name for name in ("exif", "xmp") if len(getattr(picture, name) or b"") > _LONGEST_SEGMENT]


def _restore_range(picture: Picture, pixels: np.ndarray) -> np.ndarray:
    low, high = picture.value_range
    if pixels.dtype != np.float32 or (low, high) == (0.0, 1.0):
        return pixels
    return pixels * np.float32(high - low) + np.float32(low)


def _metadata(picture: Picture) -> dict[str, Any]:
    return {name: getattr(picture, name) for name in ("icc_profile", "exif", "xmp", "dpi")}


def _tiff_tags(picture: Picture) -> dict[int, Any]:
    tags = tiff_entries(picture.exif)
    if picture.dpi:
        tags |= {282: picture.dpi[0], 283: picture.dpi[1], 296: 2}
    if picture.xmp:
        tags[700] = picture.xmp
    if picture.icc_profile:
        tags[34675] = picture.icc_profile
    return tags


def _readable_formats() -> list[str]:
    Image.init()
    return [
        name for name in Image.OPEN if name not in ("EPS", "WMF")
    ]  # drawings; EPS would start Ghostscript


def _from_pil(image: Image.Image, path: Path | None = None, formats: list[str] | None = None) -> Picture:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"expected at most {MAX_PIXELS:,} pixels, got {image.width}x{image.height}")
    if image.width * image.height == 0:
        raise ImageError(f"expected at least one pixel, got {image.width}x{image.height}")
    stored = deep_color.raw_mode(image)
    notices = []
    if getattr(image, "is_animated", False):  # counting the frames would decode them all
        notices.append("only the first of its frames is used")
    image.load()
    decoded = pixels_from_pil(image)
    pixels = decoded.pixels
    if path and formats and stored and (low := deep_color.read_low_bytes(path, stored, formats)) is not None:
        pixels = deep_color.join_bytes(np.asarray(image), low, stored)
        key = image.info.get("transparency")
        if isinstance(key, tuple):
            opaque = (pixels != np.array(key, np.uint16)).any(axis=2, keepdims=True)
            pixels = np.concatenate([pixels, opaque * np.uint16(65535)], axis=2)
    exif, orientation, unreadable = _read_exif(image)
    notices += [*decoded.notices, *unreadable]
    xmp = image.info.get("xmp")
    dpi = image.info.get("dpi")
    if dpi and orientation in (5, 6, 7, 8):
        dpi = (dpi[1], dpi[0])
    return Picture(
        pixels=np.ascontiguousarray(turn_upright(pixels, orientation)),
        format=image.format,
        icc_profile=decoded.icc_profile,
        exif=exif,
        xmp=re.sub(rb'(tiff:Orientation(="|>))\d', rb"\g<1>1", xmp) if isinstance(xmp, bytes) else None,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(0 < value < 1e6 for value in dpi) else None,
        value_range=decoded.value_range,
        notices=tuple(notices),
    )


def _read_exif(image: Image.Image) -> tuple[bytes | None, int, list[str]]:
    try:
        return *read_exif(image), []
    except Exception as error:  # EXIF of the wild; the picture itself is whole
        return None, 1, [f"its EXIF block is {_reason(error)} and is dropped"]


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return (
        text
        if text and isinstance(error, OSError | ValueError)
        else f"broken ({type(error).__name__}: {text})"
    )
