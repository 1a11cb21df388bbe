"""What Pillow cannot do: read 16 bits per sample of colour, write them as PNG, write TIFF of every depth."""

import itertools
import struct
import sys
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

# Pillow unpacks big-endian 16-bit samples ("16B") by taking the first byte of each and little-endian ones
# ("16L") by taking the second. Asking for the other order therefore yields the low bytes.
_NATIVE, _SWAPPED = ("16L", "16B") if sys.byteorder == "little" else ("16B", "16L")
_LOW_BYTES = {
    f"{bands};{order}": f"{bands};{other}"
    for bands in ("RGB", "RGBA", "RGBX")
    for order, other in (("16B", "16L"), ("16L", "16B"), ("16N", _SWAPPED))
}
_CHUNK_ROWS = 64


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


def write_png(
    file: BinaryIO,
    pixels: np.ndarray,
    *,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write uint16 `pixels` ``(H, W, 2, 3 or 4)`` as a PNG of 16 bits per sample."""

    def chunk(name: bytes, data: bytes) -> None:
        file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

    height, width, channels = pixels.shape
    color_type = {2: 4, 3: 2, 4: 6}[channels]
    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))
    if icc_profile:
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc_profile))
    if dpi:
        chunk(b"pHYs", struct.pack(">IIB", round(dpi[0] / 0.0254), round(dpi[1] / 0.0254), 1))
    if exif:
        chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if xmp:
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    compressor = zlib.compressobj(6, strategy=zlib.Z_FILTERED)
    previous = np.zeros((1, width * channels * 2), np.uint8)
    for start in range(0, height, _CHUNK_ROWS):
        rows = pixels[start : start + _CHUNK_ROWS].astype(">u2").reshape(-1, width * channels)
        samples = np.ascontiguousarray(rows).view(np.uint8)
        filtered = np.full(
            (len(samples), 1 + samples.shape[1]), 2, np.uint8
        )  # filter type 2: minus the row above
        filtered[:, 1:] = samples - np.concatenate([previous, samples[:-1]])
        previous = samples[-1:]
        if data := compressor.compress(filtered.tobytes()):
            chunk(b"IDAT", data)
    chunk(b"IDAT", compressor.flush())
    chunk(b"IEND", b"")


def write_tiff(file: BinaryIO, pixels: np.ndarray, tags: dict[int, object]) -> None:
    """Write `pixels` ``(H, W, 1 to 4)`` as a deflated TIFF of their depth.

    Pillow's own encoder cannot write 16-bit colour, nor EXIF and GPS entries into a compressed file.

    Args:
        file: Seekable, at its start.
        pixels: uint8, uint16 or float32; grey or RGB, the alpha of even channel counts not premultiplied.
        tags: Further entries of the image's directory.

    Raises:
        OSError: If the file would exceed the 4 GiB of its format.
    """
    height, width, channels = pixels.shape
    strips = []
    for start in range(0, height, _CHUNK_ROWS):
        rows = pixels[start : start + _CHUNK_ROWS]
        if pixels.dtype != np.float32:  # the predictor: each sample minus the one of its channel to the left
            rows = np.diff(rows, axis=1, prepend=np.zeros((len(rows), 1, channels), rows.dtype))
        strips.append(zlib.compress(rows.astype(rows.dtype.newbyteorder("<")).tobytes(), 6))
    directory = TiffImagePlugin.ImageFileDirectory_v2(ifh=b"II\x2a\x00\x08\x00\x00\x00")
    for tag, value in tags.items():
        directory[tag] = value
    is_float = pixels.dtype == np.float32
    directory[256], directory[257] = width, height
    directory[258] = (8 * pixels.dtype.itemsize,) * channels
    directory[259], directory[317] = 8, 1 if is_float else 2  # deflate, predictor
    directory[262] = 2 if channels > 2 else 1  # RGB, or grey with zero for black
    directory[277], directory[278], directory[284] = channels, _CHUNK_ROWS, 1
    directory[339] = (3 if is_float else 1,) * channels
    if channels in (2, 4):
        directory[338] = 2  # alpha, not premultiplied
    lengths = [len(strip) for strip in strips]
    ends = list(itertools.accumulate(lengths))
    if ends[-1] >= 2**32 - 2**24:
        raise OSError(f"a TIFF file holds at most 4 GiB, this image needs {ends[-1]} bytes")
    directory.tagtype[273] = directory.tagtype[279] = 4
    directory[273] = (0, *ends[:-1])  # Pillow counts them from the directory's end
    directory[279] = tuple(lengths)
    directory.save(file)
    for strip in strips:
        file.write(strip)
