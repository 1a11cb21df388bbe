"""Broken and lying files through the command line: a picture or a line, never more, never half."""

import io
import json
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_hub import cli
from sr_hub.generator import SRGenerator
from sr_hub.images import read_picture

KINDS = {
    "png": {},
    "jpg": {},
    "webp": {},
    "tif": {"compression": "tiff_lzw"},
    "gif": {},
    "bmp": {},
    "ppm": {},
    "tga": {},
    "jp2": {},
    "avif": {},
    "ico": {"sizes": [(16, 16)]},
}


def lying_png(width: int, height: int) -> bytes:
    """A header that promises more than there is."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def damage(folder: Path) -> int:
    """Write files that are cut, flipped and lying; how many."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    folder.mkdir()
    for kind, options in KINDS.items():
        file = io.BytesIO()
        name = Image.registered_extensions()[f".{kind}"]
        Image.fromarray(pixels).save(file, name, **options)
        whole = file.getvalue()
        for index, share in enumerate((0.02, 0.3, 0.9)):
            (folder / f"cut{index}.{kind}").write_bytes(whole[: int(len(whole) * share)])
        for index in range(4):
            flipped = bytearray(whole)
            for place in generator.integers(0, min(len(whole), 300), 1 + 3 * index):
                flipped[place] = generator.integers(0, 256)
            (folder / f"flip{index}.{kind}").write_bytes(flipped)
    sizes = [(2**31 - 1, 1), (1, 2**31 - 1), (60000, 60000), (0, 5), (10000, 10000)]
    for index, size in enumerate(sizes):
        (folder / f"lie{index}.png").write_bytes(lying_png(*size))
    return len(list(folder.iterdir()))


def test_every_damaged_file_gives_a_picture_or_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    count = damage(tmp_path / "in")
    started = time.process_time()
    code = cli.main(
        ["upscale", str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(tmp_path / "model")]
    )
    assert time.process_time() - started < 60  # for all of them
    captured = capsys.readouterr()
    assert code == 1 and "Traceback" not in captured.out + captured.err
    lines = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    results = [
        path
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and ".sr-hub" not in path.parts and path.name != "errors.jsonl"
    ]
    assert len(lines) + len(results) == count and len(lines) > 20
    assert {f"lie{index}.png" for index in range(5)} <= {line["file"] for line in lines}
    for path in results:
        read_picture(path, max_pixels=2**31)
    assert not list((tmp_path / "out").rglob("*.partial"))
    assert all(line["reason"] and "\n" not in line["reason"] for line in lines)
