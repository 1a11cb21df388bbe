"""Turns drawings (SVG) into pictures to be learnt beside photos.

    apt-get install openclipart-svg librsvg2-bin
    python examples/drawn/clipart.py /usr/share/openclipart/svg photos/drawings --count 450

Open Clip Art is in the public domain. Drawings are taken in a random order, those that are nearly empty, too
small or broken left out. ``docs/training.md`` tells what they gave.
"""

import argparse
import io
import random
import shutil
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numbered import save
from PIL import Image

SIDE, SMALLEST = 480, 300  # pixels
WIDTHS = 480, 480, 640, 960
SECONDS = 10  # that one drawing may take


def drawings(files: list[Path], seed: int) -> Iterator[Image.Image]:
    """Pictures of at most 480x480, the middle of each drawing; the same for the same files and seed."""
    rng = random.Random(seed)
    for file in rng.sample(files, len(files)):
        paper = rng.choice(["white", "white", "white", f"#{rng.randrange(1 << 24):06x}"])
        image = _rasterised(file, rng.choice(WIDTHS), paper)
        if image is not None and min(image.size) >= SMALLEST:
            left, top = (max(0, (side - SIDE) // 2) for side in image.size)
            image = image.crop((left, top, min(left + SIDE, image.width), min(top + SIDE, image.height)))
            if _is_drawn(image):
                yield image


def _rasterised(file: Path, width: int, paper: str) -> Image.Image | None:
    command = ["rsvg-convert", "--width", str(width), "--background-color", paper, str(file)]
    try:
        result = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return Image.open(io.BytesIO(result.stdout)).convert("RGB")


def _is_drawn(image: Image.Image) -> bool:
    """Whether there is contrast, and enough of it from one pixel to the next."""
    levels = np.asarray(image.convert("L"), float)
    return levels.std() >= 25 and np.abs(np.diff(levels, axis=1)).mean() >= 2.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("drawings", type=Path, help="folder tree of .svg files")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=450)
    parser.add_argument("--seed", type=int, default=0, help="of the order and the backgrounds")
    arguments = parser.parse_args()
    files = sorted(arguments.drawings.rglob("*.svg"))
    if not files:
        parser.error(f"expected .svg files in {arguments.drawings}, found none")
    if shutil.which("rsvg-convert") is None:
        parser.error("expected the program rsvg-convert (Debian: librsvg2-bin), found none")
    pictures = islice(drawings(files, arguments.seed), arguments.count)
    save(arguments.out, "drawing", enumerate(pictures), arguments.count)


if __name__ == "__main__":
    main()
