"""Makes the test set of drawn pictures: 14 screens, 12 drawings, 12 painted portraits, and their LR images.

    python -m benchmarks.drawn_set / drawn/
    python -m benchmarks --parts quality --data drawn/ --lpips lpips_alex.safetensors

The first argument is where Debian's packages lie: ``/`` where they are installed, or a folder into which
``dpkg -x`` unpacked them. Screens are manuals in a window of 360x300 with 2.5 pixels for one of CSS, drawings
are enlarged to 480 pixels, portraits keep their first 480x480. Needs ``chromium`` and ``rsvg-convert``.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.before_after import as_tensor
from benchmarks.worker import SCALE
from sr_hub.resample import downscale_bicubic
from sr_hub.sheet import to_picture

PACKAGES = (
    "idle-python3.11 libffi8 libjs-underscore libxslt1-dev nodejs-doc openclipart-svg python3-dev "
    "python3.11-doc rust-doc valgrind wesnoth-1.16-data"
)
SCREENS = [
    "usr/lib/python3.11/idlelib/help.html",
    *(
        f"usr/share/doc/{name}.html"
        for name in (
            "libffi8/html/Introduction",
            "libffi8/html/Simple-Example",
            "libjs-underscore/index",
            "libxslt1-dev/html/html/libxslt-extra",
            "nodejs/api/tty",
            "nodejs/api/punycode",
            "python3/python-policy",
            "python3.11/html/library/colorsys",
            "rust-doc/html/rustdoc/index",
            "rust-doc/html/nomicon/index",
            "valgrind/html/quick-start",
            "valgrind/html/dist.readme",
            "wesnoth-1.16-data/manual.ca",
        )
    ),
]
DRAWINGS = [
    f"usr/share/openclipart/svg/{name}.svg"
    for name in (
        "computer/icons/flat-theme/applications/amor",
        "computer/icons/flat-theme/applications/kmldonkey",
        "computer/icons/flat-theme/applications/mldonkey",
        "geography/northern-territory-shaded",
        "shapes/stars/star_54pt25step",
        "shapes/stars/star_77pt17step",
        "shapes/stars/star_81pt38step",
        "signs_and_symbols/traffic_light_yellow_dan_01",
        "transportation/aiga-symbols/aiga_tickey_purchase_",
        "transportation/big_truck_01",
        "transportation/hummer_03",
        "transportation/vehicles/4wd",
    )
]
PORTRAITS = [
    f"usr/share/games/wesnoth/1.16/data/core/images/portraits/{name}.png"
    for name in (
        "drakes/fighter",
        "humans/horseman",
        "humans/outlaw",
        "monsters/bat-dread",
        "monsters/giant_ant",
        "nagas/naga-mace_warrior3",
        "orcs/grunt-3",
        "orcs/warlord",
        "undead/banebow",
        "undead/lich",
        "undead/soulless",
        "undead/zombie-rat",
    )
]


def screen(page: Path) -> Image.Image:
    """The first 640x600 pixels of a manual, as a browser shows it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "screen.png"
        size = ["--window-size=360,300", "--force-device-scale-factor=2.5", "--hide-scrollbars"]
        browser = [
            _program("chromium"),
            "--headless",
            "--no-sandbox",
            *size,
            f"--user-data-dir={folder}/user",
        ]
        subprocess.run([*browser, f"--screenshot={target}", page.as_uri()], check=True, capture_output=True)
        with Image.open(target) as image:
            return image.convert("RGB").crop((0, 0, 640, 600))


def drawing(source: Path) -> Image.Image:
    """480 pixels wide, on white, at most 640 of its rows."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "drawing.png"
        size = ["--width=480", "--keep-aspect-ratio", "--background-color=white"]
        subprocess.run([_program("rsvg-convert"), *size, f"--output={target}", source], check=True)
        with Image.open(target) as image:
            return image.convert("RGB").crop((0, 0, 480, min(image.height, 640)))


def portrait(source: Path, seed: int) -> Image.Image:
    """The first 480x480 pixels, on a random colour."""
    color = tuple(int(value) for value in np.random.default_rng(seed).integers(0, 256, 3))
    with Image.open(source) as image:
        paper = Image.new("RGBA", image.size, (*color, 255))
        paper.alpha_composite(image.convert("RGBA"))
    return paper.convert("RGB").crop((0, 0, min(paper.width, 480), min(paper.height, 480)))


def save(picture: Image.Image, out: Path, name: str) -> None:
    """``HR/name.png``, its sides cut to multiples of 4, and ``LRx4/name.png``."""
    hr = picture.crop((0, 0, picture.width // SCALE * SCALE, picture.height // SCALE * SCALE))
    lr = to_picture(downscale_bicubic(as_tensor(hr), SCALE))
    for folder, image in (("HR", hr), (f"LRx{SCALE}", lr)):
        (out / folder).mkdir(parents=True, exist_ok=True)
        image.save(out / folder / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    root = options.root.resolve()
    missing = [name for name in (*SCREENS, *DRAWINGS, *PORTRAITS) if not (root / name).is_file()]
    if missing:
        parser.error(f"{root} lacks {', '.join(missing)}: expected what these packages hold: {PACKAGES}")
    for number, name in enumerate(SCREENS):
        save(screen(root / name), options.out, f"screen-{number:02d}")
    for number, name in enumerate(DRAWINGS):
        save(drawing(root / name), options.out, f"drawing-{number:02d}")
    for number, name in enumerate(PORTRAITS):
        save(portrait(root / name, number), options.out, f"portrait-{number:02d}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"expected the program {name}, found none")
    return found


if __name__ == "__main__":
    main()
