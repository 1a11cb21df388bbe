"""Render licence plates to train on and to measure with: ``python examples/plates/render.py --out plates/``.

The formats are invented, the strings random, so no picture shows a real plate. ``train/`` and ``held-out/``
share no string and no font. For a domain of your own, such as faces or bricks, replace this file by any
way to fill two folders with pictures.

Fonts: ``apt-get install fonts-dejavu-core fonts-liberation fonts-freefont-ttf fonts-lato fonts-open-sans
fonts-b612 fonts-roboto-unhinted``, or name your own with ``--fonts`` and ``--held-out-font``.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONTS = (
    "DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf", "LiberationSansNarrow-Bold.ttf", "FreeSansBold.ttf",
    "Lato-Bold.ttf", "Lato-Black.ttf", "OpenSans-Semibold.ttf", "OpenSans-CondBold.ttf", "B612-Bold.otf",
)  # fmt: skip
HELD_OUT_FONT = "Roboto-Bold.ttf"
HELD_OUT_HEIGHTS = (9, 8, 7, 6, 5, 4)
"""Letter heights of the held-out plates in LR pixels: the same plates, as if from ever farther away."""

SCALE = 4
WIDTH, HEIGHT = 320, 128  # of a picture, HR pixels
SUPERSAMPLING = 3  # plates are drawn so much larger, then shrunk: smooth edges
LETTERS, DIGITS = "ABCDEFGHJKLMNPRSTUVWXYZ", "0123456789"  # no I, O, Q: as in many countries


@dataclass(frozen=True)
class Format:
    """``pattern``: A is a letter, 0 a digit, the rest stands as it is. ``strip``: a band at the left."""

    pattern: str
    text: tuple[int, int, int]
    background: tuple[int, int, int]
    strip: tuple[int, int, int] | None = None


FORMATS = (
    Format("AAA 0000", (20, 20, 20), (240, 240, 240)),
    Format("AA 000 AA", (25, 25, 30), (238, 238, 235), strip=(20, 60, 160)),
    Format("AA00 AAA", (15, 15, 15), (245, 200, 40)),
    Format("0000 AAA", (20, 40, 110), (240, 240, 245)),
    Format("AAA-000", (235, 235, 235), (25, 55, 120)),
    Format("A 0000 A", (240, 240, 240), (25, 25, 28)),
    Format("00 AA 000", (10, 80, 50), (235, 240, 235), strip=(190, 40, 40)),
)


@dataclass(frozen=True)
class Label:
    """What is on a picture: its text, whether that is light on dark, and its corners.

    The corners are in HR pixels, clockwise from the top left.
    """

    text: str
    light: bool
    corners: list[list[float]]


def random_text(random: np.random.Generator, pattern: str) -> str:
    """``pattern`` with a random letter for each A and a random digit for each 0."""
    pools = {"A": LETTERS, "0": DIGITS}
    return "".join(str(random.choice(list(pools[c]))) if c in pools else c for c in pattern)


def render(
    random: np.random.Generator, font: str, letter_height: float, avoid: set[str] | None = None
) -> tuple[Image.Image, Label]:
    """One plate on a car, and what is on it.

    What is drawn at random does not depend on ``letter_height`` (HR pixels): the same ``random`` gives the
    same plate at another distance. The text is none of ``avoid``.
    """
    style = FORMATS[random.integers(len(FORMATS))]
    text = random_text(random, style.pattern)
    while text in (avoid or ()):
        text = random_text(random, style.pattern)
    size = letter_height * SUPERSAMPLING
    plate, box = _draw_plate(random, style, text, font, size)
    scene, place = _draw_car(random), _perspective(random, plate.size, size)
    canvas = scene.size
    shape = Image.new("L", plate.size, 255).transform(canvas, Image.Transform.PERSPECTIVE, place)
    shadow = shape.filter(ImageFilter.GaussianBlur(size / 8)).point(lambda value: value * 0.6)
    scene.paste((12, 12, 12), (0, round(size / 8)), shadow)
    scene.paste(
        plate.transform(canvas, Image.Transform.PERSPECTIVE, place, Image.Resampling.BICUBIC), mask=shape
    )
    picture = np.asarray(scene.reduce(SUPERSAMPLING), np.float32) / 255
    picture = _camera(random, _light(random, _dirt(random, picture))).clip(0, 1)
    corners = _project(place, box) / SUPERSAMPLING
    label = Label(text, sum(style.text) > sum(style.background), corners.round(2).tolist())
    return Image.fromarray((picture * 255).round().astype(np.uint8)), label


def _draw_plate(
    random: np.random.Generator, style: Format, text: str, font: str, size: float
) -> tuple[Image.Image, np.ndarray]:
    """The flat plate with letters ``size`` high, and the four corners of its text."""
    aspect, spacing = random.uniform(0.55, 0.72), random.uniform(0, 0.12)
    face = ImageFont.truetype(font, 200)
    _, top, _, bottom = face.getbbox("H")
    cap, room = bottom - top, 60  # room above and below: some fonts draw J below the line
    advances = [face.getlength(character) + spacing * cap for character in text]
    letters = Image.new("L", (round(sum(advances)), cap + 2 * room))
    for index, character in enumerate(text):
        place = (sum(advances[:index]), room - top)
        ImageDraw.Draw(letters).text(place, character, font=face, fill=255)
    letters = letters.resize((round(len(text) * aspect * size), round(size * letters.height / cap)))
    margin, strip = size * random.uniform(0.25, 0.4), size * 0.6 if style.strip else 0
    width, height = round(letters.width + 2 * margin + strip), round(size + 2 * margin)
    plate = Image.new("RGB", (width, height), style.background)
    draw = ImageDraw.Draw(plate)
    if style.strip:
        draw.rectangle((0, 0, strip, height), fill=style.strip)
    line = max(1, round(size / 14))
    draw.rounded_rectangle(
        (line, line, width - line, height - line), radius=size / 5, outline=style.text, width=line
    )
    plate.paste(style.text, (round(margin + strip), (height - letters.height) // 2), letters)
    left, right = margin + strip, margin + strip + letters.width
    return plate, np.array([(left, margin), (right, margin), (right, margin + size), (left, margin + size)])


def _perspective(random: np.random.Generator, plate: tuple[int, int], size: float) -> tuple[float, ...]:
    """Pillow's eight coefficients that put a plate of ``(width, height)`` onto the scene, seen askew."""
    width, height = plate
    flat = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float64)
    seen = flat - (width / 2, height / 2)
    seen[:, 0] *= random.uniform(0.85, 1)
    near = random.uniform(-0.12, 0.12)  # one side is nearer: higher
    seen[:, 1] *= 1 + near * seen[:, 0] / (width / 2)
    angle = np.radians(random.uniform(-6, 6))
    seen @= np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    seen += random.uniform(-0.03, 0.03, (4, 2)) * size
    seen += (SUPERSAMPLING * WIDTH / 2, SUPERSAMPLING * HEIGHT / 2)
    seen += random.uniform(-1, 1, 2) * (SUPERSAMPLING * 12, SUPERSAMPLING * 8)
    rows, right = [], []
    for (u, v), (x, y) in zip(flat, seen, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        right += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(right)))


def _project(place: tuple[float, ...], points: np.ndarray) -> np.ndarray:
    """Where points of the flat plate lie in the scene: the inverse of what Pillow computes."""
    seen = np.c_[points, np.ones(len(points))] @ np.linalg.inv(np.reshape([*place, 1], (3, 3))).T
    return seen[:, :2] / seen[:, 2:]


def _noise(random: np.random.Generator, cells: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Smooth noise in [0, 1], ``size`` (width, height), from a grid of random ``cells``."""
    grid = Image.fromarray(random.random(cells[::-1], np.float32))
    return np.asarray(grid.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _draw_car(random: np.random.Generator) -> Image.Image:
    """A piece of bumper: paint with soft reflections and a few edges, at the drawing size."""
    width, height = SUPERSAMPLING * WIDTH, SUPERSAMPLING * HEIGHT
    paint = random.uniform(15, 200) + random.uniform(-25, 25, 3)
    shade = 0.6 + 0.8 * _noise(random, (3, 5), (width, height))
    car = Image.fromarray((shade[..., None] * paint).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(car)
    for y in random.uniform(0, height, 3):
        slope, level = random.uniform(-20, 20), int(random.uniform(5, 120))
        draw.line((0, y, width, y + slope), fill=(level,) * 3, width=int(random.uniform(3, 16)))
    return car


def _dirt(random: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Patches of mud and specks, on half of the pictures."""
    strength = random.uniform(0, 0.5) * random.integers(2)
    size = (WIDTH, HEIGHT)
    patches = (3 * (_noise(random, (10, 5), size) - 0.6)).clip(0, 1)
    specks = (4 * (_noise(random, (160, 64), size) - 0.75)).clip(0, 1)
    cover = strength * np.maximum(patches, specks)[..., None]
    return picture * (1 - cover) + np.array((0.35, 0.28, 0.2), np.float32) * cover


def _light(random: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Dusk to bright sun, warm or cold, brighter on one side, at times with a reflection."""
    x, y = np.meshgrid(np.linspace(-1, 1, WIDTH), np.linspace(-1, 1, HEIGHT))
    angle = random.uniform(0, 2 * np.pi)
    light = random.uniform(0.45, 1.05) * (
        1 + random.uniform(0, 0.25) * (x * np.cos(angle) + y * np.sin(angle))
    )
    centre, glare = random.uniform(-0.8, 0.8, 2), max(0.0, random.uniform(-0.5, 0.3))
    reflection = glare * np.exp(-(((x - centre[0]) / 0.25) ** 2 + ((y - centre[1]) / 0.5) ** 2))
    tint = 1 + random.uniform(-0.06, 0.06, 3)
    return (picture * light[..., None] * tint + reflection[..., None]).astype(np.float32)


def _camera(random: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """A little motion blur, up to 3 HR pixels, and sensor noise: the sharp picture is no ideal either.

    The blur, noise and JPEG that the model learns to undo are not here: they are ``--degradation photo``.
    """
    length = random.uniform(0, 3)
    taps = np.array([max(0.0, min(1.0, length / 2 - abs(k) + 0.5)) for k in (-2, -1, 0, 1, 2)]) + 1e-6
    steps = zip(taps / taps.sum(), (-2, -1, 0, 1, 2), strict=True)
    blurred = sum(weight * np.roll(picture, step, axis=1) for weight, step in steps)
    noise = random.standard_normal(picture.shape, np.float32)
    return (blurred + noise * random.uniform(0, 2) / 255).astype(np.float32)


def write(out: Path, count: int, held_out: int, seed: int, fonts: list[str], held_out_font: str) -> None:
    """Fills ``out/train`` and, for each height, a folder like ``out/held-out/7px`` with its ``plates.json``.

    Raises:
        FileExistsError: If there are plates in ``out`` already.
        FileNotFoundError: If a font is missing.
    """
    for name in ("train", "held-out"):
        if (out / name).exists():
            raise FileExistsError(f"{out / name} is there already: name another --out, or delete it")
    for font in (*fonts, held_out_font):
        try:
            ImageFont.truetype(font, 20)
        except OSError:
            raise FileNotFoundError(
                f"no font {font}: install the packages named in {__file__}, or use --fonts"
            ) from None
    (out / "train").mkdir(parents=True)
    seen: set[str] = set()
    for index in range(count):
        random = np.random.default_rng((seed, 0, index))
        letter_height = SCALE * random.uniform(HELD_OUT_HEIGHTS[-1] - 0.5, HELD_OUT_HEIGHTS[0] + 0.5)
        picture, label = render(random, fonts[index % len(fonts)], letter_height)
        picture.save(out / "train" / f"{index:05}.png")
        seen.add(label.text)
    for height in HELD_OUT_HEIGHTS:
        folder = out / "held-out" / f"{height}px"
        folder.mkdir(parents=True)
        plates = {}
        for index in range(held_out):
            random = np.random.default_rng((seed, 1, index))
            picture, label = render(random, held_out_font, SCALE * height, avoid=seen)
            picture.save(folder / f"{index:03}.png")
            plates[f"{index:03}.png"] = asdict(label)
        (folder / "plates.json").write_text(json.dumps(plates, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """The exit code: 1 if a font is missing or the folder is taken."""
    parser = argparse.ArgumentParser(description="Render licence plates of invented formats.")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--count", type=int, default=2000, help="training pictures (default: %(default)s)")
    parser.add_argument(
        "--held-out", type=int, default=100, help="plates to measure on (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--fonts", nargs="+", default=list(FONTS), metavar="TTF", help="names or files, to train on"
    )
    parser.add_argument("--held-out-font", default=HELD_OUT_FONT, metavar="TTF", help="default: %(default)s")
    options = parser.parse_args()
    try:
        write(
            options.out, options.count, options.held_out, options.seed, options.fonts, options.held_out_font
        )
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
