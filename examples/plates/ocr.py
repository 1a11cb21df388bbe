"""Plates read by tesseract (``apt-get install tesseract-ocr``, which brings the English data it needs)."""

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_LOOKALIKES = str.maketrans("OQI", "001")


@dataclass(frozen=True)
class Reading:
    """What the engine read, as `plain` writes it, and its least confidence in a word, 0 to 100."""

    text: str
    confidence: int


def plain(text: str) -> str:
    """Capitals and digits only; O, Q and I, which our formats do without, are read as digits."""
    return "".join(c for c in text.upper() if c.isascii() and c.isalnum()).translate(_LOOKALIKES)


def cut_upright(picture: Image.Image, corners: np.ndarray, light: bool) -> Image.Image:
    """The text between ``corners`` (pixels), grey, dark on light: inverted where it is ``light``."""
    width, height = np.linalg.norm(corners[1] - corners[0]), np.linalg.norm(corners[3] - corners[0])
    across, down = (corners[1] - corners[0]) / width, (corners[3] - corners[0]) / height
    margin = 0.08 * height
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    quad = [corner + margin * (a * across + b * down) for corner, (a, b) in zip(corners, signs, strict=True)]
    size = round(width + 2 * margin), round(height + 2 * margin)
    # Pillow wants top left, bottom left, bottom right, top right.
    data = [value for index in (0, 3, 2, 1) for value in quad[index]]
    text = picture.convert("L").transform(size, Image.Transform.QUAD, data, Image.Resampling.BICUBIC)
    text = ImageOps.autocontrast(ImageOps.invert(text) if light else text, cutoff=1)
    return ImageOps.expand(text, round(height / 2), round(float(np.percentile(np.asarray(text), 80))))


def read(pictures: Sequence[Image.Image]) -> list[Reading]:
    """What tesseract reads in each picture, taken as one line of text.

    Raises:
        FileNotFoundError: If tesseract is not installed.
        RuntimeError: If it fails, with its own words.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{index:05}.png" for index in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path)
        (Path(folder) / "list.txt").write_text("\n".join(map(str, paths)))
        command = ["tesseract", f"{folder}/list.txt", "stdout", "-l", "eng", "--psm", "7", "--dpi", "150"]
        # Plates are no words of a dictionary. A whitelist of characters would spoil the confidences.
        command += ["-c", "load_system_dawg=0", "-c", "load_freq_dawg=0", "tsv"]
        try:
            run = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            message = "no program tesseract: install it (Debian: apt-get install tesseract-ocr)"
            raise FileNotFoundError(message) from None
    if run.returncode:
        raise RuntimeError(f"tesseract failed: {run.stderr.strip()[-500:]}")
    return parse_tsv(run.stdout, len(pictures))


def parse_tsv(table: str, count: int) -> list[Reading]:
    """One reading for each of ``count`` pages of tesseract's table; a page without words reads as nothing."""
    words: list[list[tuple[str, float]]] = [[] for _ in range(count)]
    for line in table.splitlines():
        cells = line.split("\t")
        if cells[0] == "5":  # the level of words
            words[int(cells[1]) - 1].append((cells[11], float(cells[10])))
    return [
        Reading(plain("".join(text for text, _ in page)), round(min((value for _, value in page), default=0)))
        for page in words
    ]


def character_accuracy(text: str, truth: str) -> float:
    """1 minus the edit distance as a share of the true length, at least 0."""
    row = list(range(len(truth) + 1))
    for i, a in enumerate(text, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(truth, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return max(0.0, 1 - row[-1] / len(truth))
