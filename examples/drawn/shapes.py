"""Draws pictures of overlapping shapes in the colours of photos, to be learnt beside the photos.

    python examples/drawn/shapes.py photos/ photos/shapes --count 600

Photos of landscapes hold few of the long, sharp contours that drawings, insects' wings and writing are made
of. Shapes of all sizes that hide one another, many small and few large ones, have them: "dead leaves" (Lee,
Mumford and Huang, IJCV 2001; to train networks with: arXiv:2504.10201). They are drawn thrice as large and
shrunk, so that their edges are as soft as those of a photo. ``docs/training.md`` tells what they gave.
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numbered import photos_of, save
from PIL import Image, ImageDraw, ImageFilter

SIDE, FINER = 480, 3  # pixels; how many times as large they are drawn
Color = tuple[int, ...]
Points = list[tuple[float, float]]


def draw(photos: list[Path], seed: int) -> Image.Image:
    """One picture, the same for the same photos and seed."""
    rng = np.random.default_rng(seed)
    color = _palette(_open(photos, rng), rng)
    side = SIDE * FINER
    image = Image.new("RGB", (side, side), color())
    _draw_shapes(ImageDraw.Draw(image), side, color, rng)
    if rng.uniform() < 0.35:  # out of focus
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5) * FINER))
    filters = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS
    image = image.resize((SIDE, SIDE), filters[0] if rng.uniform() < 0.5 else filters[1])
    pixels = np.asarray(image, np.float32) + _shade(rng)[..., None]
    if rng.uniform() < 0.5:
        texture = _texture(_open(photos, rng))
        pixels = pixels + rng.uniform(0.1, 0.5) * texture[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))


def _open(photos: list[Path], rng: np.random.Generator) -> Image.Image:
    with Image.open(photos[rng.integers(len(photos))]) as opened:
        return opened.convert("RGB")


def _palette(photo: Image.Image, rng: np.random.Generator) -> Callable[[], Color]:
    """Gives one of the photo's colours at each call, all of them further apart than they are."""
    colors = np.array(photo.resize((24, 24), Image.Resampling.BOX)).reshape(-1, 3).astype(float)
    mean = colors.mean(0)
    colors = np.clip((colors - mean) * rng.uniform(1, 2.2) + mean, 0, 255)

    def color() -> Color:
        chosen = np.clip(colors[rng.integers(len(colors))] + rng.normal(0, 8, 3), 0, 255)
        return tuple(int(value) for value in chosen)

    return color


def _draw_shapes(
    draw: ImageDraw.ImageDraw, side: int, color: Callable[[], Color], rng: np.random.Generator
) -> None:
    """From about the largest to the smallest, whose number falls with the third power of their radius."""
    smallest, largest = rng.choice([6, 12, 25]) * FINER / 3 * 2, side / 3
    count = int(rng.choice([120, 250, 500]))
    share = rng.uniform(size=count)
    radii = (smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5
    for index in np.argsort(-radii + rng.normal(0, largest * 0.15, count)):
        center, radius = rng.uniform(-50, side + 50, 2), radii[index]
        if rng.uniform() < 0.15:
            curve = _curve(center, radius, rng)
            draw.line(curve, fill=color(), width=max(2, int(rng.uniform(0.5, 5) * FINER)), joint="curve")
            continue
        outline = _outline(center, radius, rng)
        draw.polygon(outline, fill=color())
        if rng.uniform() < 0.3:
            width = color(), max(2, int(rng.uniform(0.4, 3) * FINER))
            draw.line([*outline, outline[0]], fill=width[0], width=width[1])


def _outline(center: np.ndarray, radius: float, rng: np.random.Generator) -> Points:
    """An ellipse, a polygon, a blob or a bar."""
    kind = rng.integers(0, 4)
    if kind == 0:
        wide, high = radius * rng.uniform(0.5, 1.6), radius * rng.uniform(0.3, 1.2)
        angles = np.linspace(0, 2 * np.pi, 80)
        return _turned(center, wide * np.cos(angles), high * np.sin(angles), rng.uniform(0, np.pi))
    if kind == 1:
        corners = rng.integers(3, 7)
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = radius * rng.uniform(0.5, 1.4, corners)
    elif kind == 2:
        angles = np.linspace(0, 2 * np.pi, 120)
        radii = np.ones_like(angles)
        for wave in range(2, 6):
            radii += rng.uniform(0, 0.5 / wave) * np.cos(wave * angles + rng.uniform(0, 6.3))
        radii = radius * radii
    else:
        wide, high = radius * rng.uniform(1, 4), radius * rng.uniform(0.05, 0.5)
        xs, ys = np.array([-wide, wide, wide, -wide]), np.array([-high, -high, high, high])
        return _turned(center, xs, ys, rng.uniform(0, np.pi))
    return _turned(center, radii * np.cos(angles), radii * np.sin(angles), 0.0)


def _turned(center: np.ndarray, xs: np.ndarray, ys: np.ndarray, angle: float) -> Points:
    cos, sin = math.cos(angle), math.sin(angle)
    return [
        (center[0] + x * cos - y * sin, center[1] + x * sin + y * cos) for x, y in zip(xs, ys, strict=True)
    ]


def _curve(center: np.ndarray, radius: float, rng: np.random.Generator) -> Points:
    """A Bézier curve of two to four degrees, by de Casteljau's algorithm."""
    points = rng.uniform(-2, 2, (rng.integers(3, 6), 2)) * radius * 2 + center
    along = np.linspace(0, 1, 60)[:, None, None]
    curve = np.repeat(points[None], 60, axis=0)
    while curve.shape[1] > 1:
        curve = curve[:, :-1] * (1 - along) + curve[:, 1:] * along
    return [tuple(point) for point in curve[:, 0]]


def _shade(rng: np.random.Generator) -> np.ndarray:
    """A slope of light over the picture, in 8-bit levels."""
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    return rng.normal(0, 18) * columns + rng.normal(0, 18) * rows


def _texture(photo: Image.Image) -> np.ndarray:
    """The fine part of a photo's brightness, in 8-bit levels."""
    brightness = photo.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    coarse = brightness.filter(ImageFilter.GaussianBlur(12))
    return np.asarray(brightness, np.float32) - np.asarray(coarse, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder tree whose colours and textures are taken")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next have the next")
    arguments = parser.parse_args()
    photos = photos_of(parser, arguments.photos, arguments.out)
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    save(arguments.out, "shapes", ((seed, draw(photos, seed)) for seed in seeds), arguments.count)


if __name__ == "__main__":
    main()
