"""What Pillow cannot do: read 16 bits per sample of colour."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

# Pillow unpacks big-endian 16-bit samples ("16B") by taking the first byte of each and little-endian ones
# ("16L") by taking the second. Asking for the other order therefore yields the low bytes.
_NATIVE, _SWAPPED = ("16L", "16B") if sys.byteorder == "little" else ("16B", "16L")
_LOW_BYTES = {
    f"{bands};{order}": f"{bands};{other}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order, other in (("16B", "16L"), ("16L", "16B"), ("16N", _SWAPPED))
}


def raw_mode(image: Image.Image) -> str | None:
    """The layout of the samples in a file opened by Pillow and not yet loaded, such as ``"RGB;16B"``."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = tiles[0].args if tiles else None
    mode = args[0] if isinstance(args, tuple) and args else args
    return mode if isinstance(mode, str) else None


def read_low_bytes(path: Path, mode: str, formats: list[str]) -> np.ndarray | None:
    """The low byte of every sample ``(H, W, 3 or 4)`` of a file with 16-bit colour, uint8.

    For 16-bit grey with alpha, which Pillow reads as RGBA, the result is ``(H, W, 4)`` with the high and low
    bytes of grey and alpha in this order.

    Args:
        path: An image file that Pillow opens.
        mode: What `raw_mode` said of it.
        formats: Pillow's names of the formats that may be opened.

    Returns:
        None for all layouts that are not 16-bit colour.
    """
    wanted = "RGBA" if mode == "LA;16B" else _LOW_BYTES.get(mode)
    if wanted is None:
        return None
    with Image.open(path, formats=formats) as image:
        for index, tile in enumerate(image.tile):
            args = (wanted, *tile.args[1:]) if isinstance(tile.args, tuple) else wanted
            image.tile[index] = tile._replace(args=args)
        return np.asarray(image)


def join_bytes(high: np.ndarray, low: np.ndarray, mode: str) -> np.ndarray:
    """uint16 samples ``(H, W, 2, 3 or 4)`` from what Pillow read and what `read_low_bytes` returned."""
    if mode == "LA;16B":
        high, low = low[..., 0::2], low[..., 1::2]
    return high.astype(np.uint16) << 8 | low
