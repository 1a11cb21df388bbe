"""Draws pages, as of screens and print, to be learnt beside photos: writing, rules, boxes, grids, plots.

    python examples/drawn/writing.py photos/ photos/writing --fonts /usr/share/fonts --count 400

Photos hold little of what screenshots are made of: letters, flat colours, lines one pixel wide. Two fifths of
the pages are drawn as screens draw, pixel by pixel, the others thrice as large and shrunk; some are turned,
some lie on a photo. ``docs/training.md`` tells what they gave.
"""

import argparse
from pathlib import Path

import numpy as np
from numbered import photos_of, save
from PIL import Image, ImageDraw, ImageFont

SIDE = 480  # pixels
LETTERS, MARKS = "eeeeetttaaaooiinnsshhrrddllcumwfgypbvk", ".,:;-!?()/&%+=#@"
Color = tuple[int, ...]


class Page:
    """One page while it is drawn, the same for the same photos, fonts and seed."""

    def __init__(self, photos: list[Path], fonts: list[Path], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.fonts = fonts
        self.finer = 1 if self.rng.uniform() < 0.4 else 3
        self.side = SIDE * self.finer
        self.image, self.ink = self._paper(photos)
        self.pen = ImageDraw.Draw(self.image)

    def draw(self) -> Image.Image:
        """The finished page, 480x480."""
        kinds = [self._paragraph] * 5 + [self._boxes, self._grid, self._plot, self._heading]
        for _ in range(self.rng.integers(3, 14)):
            kinds[self.rng.integers(len(kinds))]()
        image = self.image
        if self.finer > 1:
            if self.rng.uniform() < 0.4:
                angle = self.rng.choice([self.rng.uniform(-6, 6), self.rng.uniform(-45, 45)])
                image = image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=image.getpixel((0, 0)))
            filters = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BOX
            image = image.resize((SIDE, SIDE), filters[self.rng.integers(3)])
        return image

    def _color(self) -> Color:
        return tuple(int(value) for value in self.rng.integers(0, 256, 3))

    def _paper(self, photos: list[Path]) -> tuple[Image.Image, Color]:
        """White, dark, coloured, sloping or a photo, and an ink that can be read on it."""
        size, kind = (self.side, self.side), self.rng.uniform()
        if kind < 0.4:
            return Image.new("RGB", size, (255, 255, 255)), tuple([int(self.rng.integers(0, 90))] * 3)
        if kind < 0.55:
            return Image.new("RGB", size, tuple([int(self.rng.integers(0, 60))] * 3)), (225, 225, 225)
        if kind < 0.85:
            first, second = self._color(), self._color()
            paper = Image.new("RGB", size, first)
            if kind < 0.65:
                slope = Image.linear_gradient("L").resize(size)
                paper = Image.composite(paper, Image.new("RGB", size, second), slope)
        else:
            with Image.open(photos[self.rng.integers(len(photos))]) as opened:
                paper = opened.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        bright = np.asarray(paper.convert("L").resize((1, 1), Image.Resampling.BOX)).item()
        return paper, (20, 20, 20) if bright > 128 else (245, 245, 245)

    def _place(self) -> tuple[int, int]:
        x, y = self.rng.integers(-self.side // 10, self.side * 8 // 10, 2)
        return int(x), int(y)

    def _tone(self) -> Color:
        return self.ink if self.rng.uniform() < 0.6 else self._color()

    def _word(self) -> str:
        if self.rng.uniform() < 0.12:
            return str(self.rng.integers(0, 10 ** int(self.rng.integers(1, 6))))
        word = "".join(self.rng.choice(list(LETTERS), self.rng.integers(1, 11)))
        cases = word, word, word.capitalize(), word.upper()
        mark = str(self.rng.choice(list(MARKS))) if self.rng.uniform() < 0.15 else ""
        return cases[self.rng.integers(4)] + mark

    def _font(self, smallest: float, largest: float) -> tuple[ImageFont.FreeTypeFont, int]:
        height = float(np.exp(self.rng.uniform(np.log(smallest), np.log(largest))))
        size = int(height * self.finer)
        return ImageFont.truetype(self.fonts[self.rng.integers(len(self.fonts))], size), size

    def _paragraph(self) -> None:
        font, size = self._font(11, 60)
        (x, y), tone = self._place(), self._tone()
        pitch = int(size * self.rng.uniform(1.1, 1.7))
        for row in range(int(self.rng.integers(1, 9))):
            line = " ".join(self._word() for _ in range(self.rng.integers(1, 12)))
            self.pen.text((x, y + row * pitch), line, fill=tone, font=font)
            if self.rng.uniform() < 0.08:
                under = y + row * pitch + int(size * 1.05)
                self.pen.line((x, under, x + size * len(line) // 2, under), tone, max(1, size // 14))

    def _heading(self) -> None:
        font, size = self._font(50, 160)
        edge = {"stroke_width": max(1, size // 25), "stroke_fill": self._color()}
        self.pen.text(
            self._place(),
            self._word() + " " + self._word(),
            fill=self._tone(),
            font=font,
            **(edge if self.rng.uniform() < 0.3 else {}),
        )

    def _boxes(self) -> None:
        """Buttons, fields and frames."""
        (x, y), (wide, high) = self._place(), self.rng.integers(self.side // 30, self.side // 3, 2)
        round_by, width = int(self.rng.integers(0, 12)) * self.finer, self._width()
        for column in range(int(self.rng.integers(1, 5))):
            left = x + column * int(wide * 1.1)
            self.pen.rounded_rectangle(
                (left, y, left + int(wide), y + int(high)),
                min(round_by, int(min(wide, high)) // 2),
                self._color() if self.rng.uniform() < 0.5 else None,
                self._tone(),
                width,
            )

    def _grid(self) -> None:
        """The rules of a table or of ruled paper."""
        (x, y), tone, width = self._place(), self._tone(), self._width()
        across, down = (int(step) for step in self.rng.integers(5, 90, 2) * self.finer)
        columns, rows = (int(count) for count in self.rng.integers(1, 14, 2))
        for row in range(rows + 1):
            self.pen.line((x, y + row * down, x + columns * across, y + row * down), tone, width)
        for column in range(columns + 1):
            self.pen.line((x + column * across, y, x + column * across, y + rows * down), tone, width)

    def _plot(self) -> None:
        """A curve of a random walk, or rays."""
        (x, y), tone, width = self._place(), self._tone(), self._width()
        if self.rng.uniform() < 0.5:
            steps = np.cumsum(self.rng.normal(0, 12 * self.finer, 40))
            points = [(x + index * 8 * self.finer, y + float(step)) for index, step in enumerate(steps)]
            self.pen.line(points, tone, width, joint="curve")
            return
        radius = float(self.rng.uniform(0.1, 0.5)) * self.side
        for angle in np.linspace(0, 2 * np.pi, int(self.rng.integers(6, 60)), endpoint=False):
            self.pen.line((x, y, x + radius * np.cos(angle), y + radius * np.sin(angle)), tone, width)

    def _width(self) -> int:
        return max(1, round(self.rng.choice([1, 1, 2, 3, 5]) * self.finer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder tree; some of them become a page's background")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--fonts", type=Path, action="append", required=True, help="folder tree of .ttf and .otf"
    )
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0, help="of the first page; the next have the next")
    arguments = parser.parse_args()
    photos = photos_of(parser, arguments.photos, arguments.out)
    fonts = sorted(file for folder in arguments.fonts for file in folder.rglob("*.[ot]tf"))
    if not fonts:
        parser.error(f"expected .ttf or .otf files in {', '.join(map(str, arguments.fonts))}, found none")
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    save(
        arguments.out,
        "writing",
        ((seed, Page(photos, fonts, seed).draw()) for seed in seeds),
        arguments.count,
    )


if __name__ == "__main__":
    main()
