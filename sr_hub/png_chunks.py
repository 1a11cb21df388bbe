"""Colour of PNG files that Pillow does not hand on: primaries, gamma, and code points of HDR pictures."""

import struct
from pathlib import Path
from typing import BinaryIO

_COLOR = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")
# What cICP, gAMA and cHRM say of sRGB, the latter two in units of 1e-5 and within what libpng lets pass.
_CICP = bytes((1, 13, 0, 1))
_GAMMA = (45455,)
_PRIMARIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
_LONGEST = 64  # bytes of such a chunk, and more


def read_color_chunks(file: BinaryIO) -> tuple[tuple[bytes, bytes], ...]:
    """Name and data of the chunks that say what the samples mean; none if it is no PNG file.

    Args:
        file: Open for reading, anywhere; left elsewhere.
    """
    file.seek(0)
    found = []
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        return ()
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"IEND"):
            break
        if name in _COLOR and length <= _LONGEST:
            found.append((name, file.read(length)))
            length = 0
        file.seek(length + 4, 1)
    return tuple(found)


def other_than_srgb(chunks: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Whether chunks of `read_color_chunks` say that the samples are in other colours than sRGB's.

    By the order of precedence of PNG's third edition, section 4.3: cICP, sRGB, then gAMA and cHRM.
    """
    said = dict(chunks)
    if b"cICP" in said:
        return said[b"cICP"] != _CICP
    if b"sRGB" in said:
        return False
    gamma, primaries = (_numbers(said.get(name)) for name in (b"gAMA", b"cHRM"))
    return _differ(gamma, _GAMMA, 0.05 * _GAMMA[0]) or _differ(primaries, _PRIMARIES, 1000)


def _numbers(data: bytes | None) -> tuple[int, ...] | None:
    return None if data is None else struct.unpack(f">{len(data) // 4}I", data[: len(data) // 4 * 4])


def _differ(said: tuple[int, ...] | None, of_srgb: tuple[int, ...], most: float) -> bool:
    return said is not None and any(abs(a - b) > most for a, b in zip(said, of_srgb, strict=False))


def has_late_text(path: Path) -> bool:
    """Whether a PNG file has EXIF or text after its samples, which Pillow finds when it decodes them."""
    with open(path, "rb") as file:
        file.seek(8)
        seen_samples = False
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            seen_samples |= name == b"IDAT"
            if seen_samples and name in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
                return True
            file.seek(length + 4, 1)
    return False
