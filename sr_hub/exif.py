"""EXIF blocks: orientation applied and taken out, sizes that follow the picture, entries of a TIFF file."""

from typing import Any

import numpy as np
from PIL import ExifTags, Image

# Directory entries on how a file stores its samples, orientation included, or previews: wrong for another.
_STORAGE_TAGS = frozenset(
    [*range(254, 267), 273, 274, *range(277, 282), 284, *range(288, 294), *range(317, 326), 330, 332, 333]
    + [334, *range(336, 344), 347, 351, *range(512, 522), *range(529, 533), 700, 34377, 34675, 37724]
)

_LARGEST_DPI = 1e6  # what is above is no resolution


def read_exif(image: Image.Image) -> tuple[bytes | None, int]:
    """The EXIF block of an opened image without orientation, thumbnail and storage, and the orientation.

    Raises:
        Exception: Of nearly any kind, where the block is broken or cannot be rescaled later.
    """
    exif = image.getexif()  # the image's own: it must stay as it is
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    data = exif_bytes(exif)
    if data:
        rescale_exif(data, 1, 1, (1, 1))
    return data, orientation if isinstance(orientation, int) else 1


def read_dpi(image: Image.Image) -> tuple[float, float] | None:
    """Horizontal and vertical pixels per inch of a loaded image, as stored; None if the file says nothing.

    Pillow gives 72 or 1 for some files without a resolution.
    """
    dpi = image.info.get("dpi")
    if image.format == "TIFF" and ExifTags.Base.XResolution not in getattr(image, "tag_v2", {}):
        return None
    if image.format in ("JPEG", "MPO") and not image.info.get("jfif_unit"):
        try:
            if not {ExifTags.Base.XResolution, ExifTags.Base.ResolutionUnit} <= set(image.getexif()):
                return None
        except Exception:  # an EXIF block of the wild, which says nothing then
            return None
    if not isinstance(dpi, tuple) or len(dpi) != 2 or not all(0 < value < _LARGEST_DPI for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def exif_bytes(exif: Image.Exif) -> bytes | None:
    """The block as bytes, without orientation, thumbnail and what is of one file's storage; None if empty."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag not in _STORAGE_TAGS:
            kept[tag] = exif.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else value
    return kept.tobytes() if len(kept) else None


def rescale_exif(data: bytes, width: int, height: int, scale: tuple[float, float]) -> bytes | None:
    """The block for a picture of another size.

    Args:
        data: An EXIF block.
        width: Of the new picture, in pixels.
        height: Likewise.
        scale: New pixels per old one, horizontally and vertically.
    """
    exif = Image.Exif()
    exif.load(data)
    for tag, factor in zip((ExifTags.Base.XResolution, ExifTags.Base.YResolution), scale, strict=True):
        if tag in exif:
            exif[tag] = float(exif[tag]) * factor
    details = exif.get_ifd(ExifTags.IFD.Exif)
    sizes = {ExifTags.Base.ExifImageWidth: width, ExifTags.Base.ExifImageHeight: height}
    details.update({tag: size for tag, size in sizes.items() if tag in details})
    return exif_bytes(exif)


def turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """``(H, W, C)`` as it is to be looked at, by EXIF's `orientation` 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return pixels[rows, columns]


def tiff_entries(exif: bytes | None) -> dict[int, Any]:
    """The block as entries of a TIFF file's directory."""
    block = Image.Exif()
    block.load(exif or b"")
    return {
        tag: block.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else value
        for tag, value in block.items()
    }
