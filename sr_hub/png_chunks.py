"""Colour of PNG files that Pillow does not hand on: primaries, gamma, and code points of HDR pictures."""

import struct
from pathlib import Path
from typing import BinaryIO

_COLOR = (b"cICP", b"sRGB", b"gAMA", b"cHRM", b"mDCV", b"cLLI")
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
