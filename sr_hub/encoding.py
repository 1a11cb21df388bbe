"""Pictures into files: which formats hold what, and files that appear whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from sr_hub.exif import tiff_entries
from sr_hub.images import ImageError, Picture, metadata_of, reason_of, restore_range
from sr_hub.pixels import join_alpha, round_to
from sr_hub.png_chunks import other_than_srgb
from sr_hub.strip_writers import PngWriter, StripWriter, TiffWriter
from sr_hub.whole_files import whole_file

_LONGEST_SEGMENT = 65502  # of JPEG, less its own names
_CODESTREAMS = (".j2k", ".j2c", ".jpc")  # of JPEG 2000, without the boxes around it
_LARGEST_DENSITY = 65535  # of JPEG, pixels per inch


@dataclass(frozen=True)
class Format:
    """What a file format that can be written holds.

    Attributes:
        name: Pillow's.
        alpha: Whether it holds transparency.
        deep: Whether it holds 16 bits per sample.
        metadata: Whether it holds a colour profile, EXIF and XMP.
        strips: Whether it is written some rows at a time.
        largest_side: In pixels.
        largest_area: In pixels; where larger ones take minutes and gigabytes to encode.
        memory: Bytes per pixel that the encoder takes, where it wants the whole picture; measured.
        options: For Pillow's encoder.
    """

    name: str
    alpha: bool = False
    deep: bool = False
    metadata: bool = False
    strips: bool = False
    largest_side: int = 2**31 - 1
    largest_area: int = 2**62
    memory: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def lossy(self) -> bool:
        """Whether its encoder takes a quality."""
        return "quality" in dict(self.options)

    def with_quality(self, quality: int) -> "Format":
        """The same format with another quality, from 1 to 100; itself where it has no losses."""
        if not 1 <= quality <= 100:
            raise ValueError(f"quality must lie from 1 to 100, got {quality}")
        options = dict(self.options) | {"quality": quality}
        return replace(self, options=tuple(options.items())) if self.lossy else self


_FORMATS = {
    known.name: known
    for known in (
        Format("PNG", alpha=True, deep=True, metadata=True, strips=True),
        Format("TIFF", alpha=True, deep=True, metadata=True, strips=True),
        Format(
            "JPEG", metadata=True, largest_side=65500, memory=4, options=(("quality", 95), ("subsampling", 0))
        ),
        Format("WEBP", alpha=True, metadata=True, largest_side=16383, memory=11, options=(("quality", 95),)),
        Format(
            "AVIF",
            alpha=True,
            metadata=True,
            largest_side=65536,
            largest_area=2**26,
            memory=30,
            options=(("quality", 90),),
        ),
        Format("JPEG2000", alpha=True, largest_area=2**26, memory=17, options=(("tile_size", (1024, 1024)),)),
        Format("GIF", alpha=True, largest_side=65535, memory=14),
        Format("BMP", memory=4),
        Format("TGA", alpha=True, largest_side=65535, memory=4),
        Format("PPM", memory=4),
    )
}


def writable_format(path: str | os.PathLike[str]) -> Format:
    """The format a file of this name is written in.

    Raises:
        ImageError: If the suffix names no format that can be written.
    """
    suffix = Path(path).suffix.lower()
    name = "" if suffix == ".pfm" else Image.registered_extensions().get(suffix, "")  # of floats, for Pillow
    if name not in _FORMATS or name not in Image.SAVE:
        raise ImageError(
            f"{path}: expected a suffix of {', '.join(sorted(_FORMATS))}, got {suffix or 'none'}"
        )
    known = _FORMATS[name]
    if suffix in _CODESTREAMS:  # what Pillow goes by is the file's name, which here is a temporary one
        return replace(known, options=(*known.options, ("no_jp2", True)))
    return known


def check_fits(path: str | os.PathLike[str], height: int, width: int) -> Format:
    """The format of a file of this name, which can hold a picture of this size.

    Raises:
        ImageError: If its format cannot hold that many pixels a side, or cannot be written.
    """
    known = writable_format(path)
    if max(height, width) > known.largest_side:
        raise ImageError(
            f"{path}: {known.name} holds at most {known.largest_side} pixels a side, got {width}x{height}; "
            "choose PNG or TIFF"
        )
    if height * width > known.largest_area:
        raise ImageError(
            f"{path}: {known.name} is written up to {known.largest_area:,} pixels, got {width}x{height}; "
            "choose PNG or TIFF"
        )
    return known


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
    if known.name != "PNG" and other_than_srgb(picture.png_color):
        lost.append(f"{known.name} holds no colour chunks of PNG: the colours are taken for sRGB")
    if too_large := _too_large(picture, known):
        lost.append(f"{' and '.join(too_large)} too large for {known.name}: dropped")
    return lost


def too_large_for(picture: Picture, path: str | os.PathLike[str]) -> list[str]:
    """The fields of the picture, of ``exif``, ``xmp`` and ``dpi``, that no file of this name can hold."""
    return _too_large(picture, writable_format(path))


def write_picture(picture: Picture, path: str | os.PathLike[str], *, quality: int | None = None) -> None:
    """Write a picture to `path`, whole or not at all, in the format of its suffix.

    Args:
        picture: Samples and metadata.
        path: Where to.
        quality: From 1 to 100, for the formats with losses; None for a high one of each format.

    Raises:
        ImageError: If the format is unknown or cannot hold the size, or the file cannot be written.
        ValueError: If `quality` is out of its range.
    """
    write_strips(picture, picture.pixels.shape, [picture.pixels], path, quality=quality)


def write_strips(
    picture: Picture,
    shape: tuple[int, ...],
    strips: Iterable[np.ndarray],
    path: str | os.PathLike[str],
    *,
    quality: int | None = None,
) -> None:
    """Write a picture that is made while it is written, from top to bottom.

    PNG and TIFF need the memory of one strip; all other formats that of the picture.

    Args:
        picture: Everything but the samples; those it has are not looked at.
        shape: ``(H, W, C)`` of the picture that is written.
        strips: Its rows, ``(h, W, C)`` each, of one dtype.
        path: As in `write_picture`, which names the errors.
        quality: Likewise.

    Raises:
        ImageError: As in `write_picture`. Errors of `strips` itself are passed on.
    """
    path, strips = Path(path), iter(strips)
    known = check_fits(path, *shape[:2])
    if quality is not None:
        known = known.with_quality(quality)
    failed: list[Exception] = []
    try:
        with whole_file(path) as file:
            _encode(picture, shape, _noting(strips, failed), known, file)
    except Exception as error:  # encoders raise nearly anything too
        if failed:
            raise
        raise ImageError(f"{path}: cannot be written: {reason_of(error)}") from error


def _noting(strips: Iterator[np.ndarray], failed: list[Exception]) -> Iterator[np.ndarray]:
    try:
        yield from strips
    except Exception as error:
        failed.append(error)
        raise


def _encode(
    picture: Picture, shape: tuple[int, ...], strips: Iterator[np.ndarray], known: Format, file: BinaryIO
) -> None:
    dropped: dict[str, Any] = dict.fromkeys(_too_large(picture, known))
    picture = replace(picture, **dropped)
    rows = (_fit(picture, strip, known) for strip in strips)
    first = next(rows)
    whole = (shape[0], shape[1], first.shape[2])
    writer: StripWriter
    if known.name == "TIFF":
        writer = TiffWriter(file, whole, first.dtype, _tiff_tags(picture))
    elif known.name != "PNG":
        writer = PillowWriter(file, whole, known, metadata_of(picture))
    else:
        writer = PngWriter(file, whole, first.dtype, chunks=picture.png_color, **metadata_of(picture))
    writer.write(first)
    del first
    for strip in rows:
        writer.write(strip)
    writer.close()


def _fit(picture: Picture, pixels: np.ndarray, known: Format) -> np.ndarray:
    """The rows in channels and depth as the format holds them."""
    if not known.alpha:
        pixels = join_alpha(pixels)
    if pixels.dtype == np.float32 and known.name == "TIFF" and pixels.shape[2] == 1:
        return restore_range(picture, pixels)
    if pixels.dtype != np.uint8:
        pixels = round_to(np.uint16 if known.deep else np.uint8, pixels)
    if known.name == "TIFF" and pixels.shape[2] == 2 and pixels.dtype == np.uint16:
        return pixels[..., [0, 0, 0, 1]]  # few programs, and not Pillow, read 16-bit grey with alpha
    return pixels


class PillowWriter:
    """Collects the rows in a PIL image and lets Pillow encode it.

    Args:
        file: Open for writing.
        shape: ``(H, W, C)`` of uint8 samples.
        known: The format.
        metadata: What Pillow's encoder takes by these names.
    """

    def __init__(
        self, file: BinaryIO, shape: tuple[int, int, int], known: Format, metadata: dict[str, Any]
    ) -> None:
        self._file, self._format, self._row = file, known, 0
        self._metadata = {key: value for key, value in metadata.items() if value}
        height, width, channels = shape
        self._image = Image.new(("L", "LA", "RGB", "RGBA")[channels - 1], (width, height))

    def write(self, rows: np.ndarray) -> None:
        """Take the next ``(h, W, C)`` rows."""
        strip = Image.fromarray(rows[..., 0] if rows.shape[2] == 1 else rows)
        if len(rows) == self._image.height:
            self._image = strip
        else:
            self._image.paste(strip, (0, self._row))
        self._row += len(rows)

    def close(self) -> None:
        """Encode the picture once all rows are there."""
        assert self._row == self._image.height, f"{self._image.height - self._row} rows are missing"
        options = self._metadata | dict(self._format.options)
        self._image.save(self._file, format=self._format.name, **options)


def _too_large(picture: Picture, known: Format) -> list[str]:
    """Metadata that exceeds a JPEG segment or a field of it."""
    if known.name != "JPEG":
        return []
    names = [name for name in ("exif", "xmp") if len(getattr(picture, name) or b"") > _LONGEST_SEGMENT]
    return names + ["dpi"] * (max(picture.dpi or (0,)) > _LARGEST_DENSITY)


def _tiff_tags(picture: Picture) -> dict[int, Any]:
    tags = tiff_entries(picture.exif)
    if picture.dpi:
        tags |= {282: picture.dpi[0], 283: picture.dpi[1], 296: 2}
    if picture.xmp:
        tags[700] = picture.xmp
    if picture.icc_profile:
        tags[34675] = picture.icc_profile
    return tags
