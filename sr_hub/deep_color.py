"""What Pillow cannot do: read 16 bits per sample of colour, and a few layouts that it reads wrongly."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

# Pillow unpacks big-endian 16-bit samples ("16B") by taking the first byte of each and little-endian ones
# ("16L") by taking the second. Asking for the other order therefore yields the low bytes.
_SWAPPED = "16B" if sys.byteorder == "little" else "16L"
_OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": _SWAPPED}
_BANDS = ("RGB", "RGBA", "RGBX", "RGBa")
_BITS, _PHOTOMETRIC, _PLANAR = 258, 262, 284


def raw_mode(image: Image.Image) -> str | None:
    """The layout of the samples in a file opened by Pillow and not yet loaded, such as ``"RGB;16B"``."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = tiles[0].args if tiles else None
    mode = args[0] if isinstance(args, tuple) and args else args
    return mode if isinstance(mode, str) else None


def read_deep(path: Path, image: Image.Image, mode: str, formats: list[str]) -> np.ndarray | None:
    """All 16 bits of every sample ``(H, W, 2, 3 or 4)`` of a file with 16-bit colour, uint16.

    Args:
        path: An image file that Pillow opens.
        image: What it became, loaded.
        mode: What `raw_mode` said of it.
        formats: Pillow's names of the formats that may be opened.

    Returns:
        None for all layouts that are not 16-bit colour, and for planes that are compressed, of which Pillow
        gives the high bytes alone.
    """
    if _is_planar(image):
        return _read_planes(path, formats)
    if mode == "LA;16B":  # which Pillow reads as RGBA: the high and low bytes of grey and alpha
        both = _read_as(path, "RGBA", formats)
        return both[..., 0::2].astype(np.uint16) << 8 | both[..., 1::2]
    bands, _, order = mode.partition(";")
    if bands not in _BANDS or order not in _OTHER_ORDER:
        return None
    plain = bands.replace("a", "A")  # Pillow would divide the bytes by alpha
    high = np.asarray(image) if plain == bands else _read_as(path, f"{plain};{order}", formats)
    pixels = high.astype(np.uint16) << 8
    pixels |= _read_as(path, f"{plain};{_OTHER_ORDER[order]}", formats)
    return _divide_by_alpha(pixels) if bands == "RGBa" else pixels


def is_white_zero(image: Image.Image) -> bool:
    """Whether the samples are 16-bit grey with zero for white, which Pillow leaves as they are."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or not image.mode.startswith("I;16"):
        return False
    return image.tag_v2.get(_PHOTOMETRIC) == 0


def _read_as(path: Path, mode: str, formats: list[str]) -> np.ndarray:
    with Image.open(path, formats=formats) as image:
        for index, tile in enumerate(image.tile):
            args = (mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode
            image.tile[index] = tile._replace(args=args)
        return np.asarray(image)


def _is_planar(image: Image.Image) -> bool:
    """Whether it is a TIFF file of 16-bit colour that has each channel by itself."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.tag_v2.get(_PLANAR) != 2:
        return False
    return image.mode in _BANDS and set(image.tag_v2.get(_BITS, ())) == {16}


def _read_planes(path: Path, formats: list[str]) -> np.ndarray | None:
    """Planes that are not compressed; Pillow takes their bytes for samples."""
    with Image.open(path, formats=formats) as image, open(path, "rb") as file:
        assert isinstance(image, TiffImagePlugin.TiffImageFile)
        if image.mode == "RGBa" or any(tile.codec_name != "raw" for tile in image.tile):
            return None
        pixels = np.zeros((image.height, image.width, len(image.mode)), np.uint16)
        order = "<u2" if image.tag_v2.prefix == b"II" else ">u2"
        for tile in image.tile:
            assert tile.extents is not None and isinstance(tile.args, tuple)
            left, top, right, bottom = tile.extents
            row = (tile.args[1] or 2 * (right - left)) // 2
            file.seek(tile.offset)
            samples = np.frombuffer(file.read(2 * row * (bottom - top)), order).reshape(bottom - top, row)
            pixels[top:bottom, left:right, image.mode.index(tile.args[0])] = samples[:, : right - left]
        return pixels


def _divide_by_alpha(pixels: np.ndarray) -> np.ndarray:
    alpha = np.maximum(pixels[..., 3:], 1).astype(np.float64)
    colors = np.minimum(np.rint(pixels[..., :3] * (65535 / alpha)), 65535).astype(np.uint16)
    return np.concatenate([colors, pixels[..., 3:]], axis=2)
