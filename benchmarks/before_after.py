"""Draws the README's picture: LR | bicubic | fidelity | detail | original, crops of pictures shrunk 4x.

    python benchmarks/before_after.py docs/before_after.png --model clean PICTURE:LEFT,TOP,WIDTH,HEIGHT ...

LEFT, TOP, WIDTH and HEIGHT are pixels of the original, multiples of 4.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sr_hub import SRGenerator, upscale
from sr_hub.resample import downscale_bicubic, upscale_bicubic

TITLES = ("input, shrunk 4x", "bicubic", "sr_hub, fidelity", "sr_hub, detail", "original")
GAP, LINE = 6, 24  # pixels


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def as_image(tensor: torch.Tensor) -> Image.Image:
    values = tensor[0].clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())


def row(path: Path, box: tuple[int, int, int, int], model: str) -> list[Image.Image]:
    """The five crops of one picture, all of the size of ``box``."""
    with Image.open(path) as opened:
        width, height = (side // 4 * 4 for side in opened.size)
        original = opened.convert("RGB").crop((0, 0, width, height))
    lr = downscale_bicubic(as_tensor(original), 4, round_to_8_bits=True)
    images = [as_image(lr).resize(original.size, Image.Resampling.NEAREST), as_image(upscale_bicubic(lr, 4))]
    for fidelity in (1.0, 0.0):
        images.append(upscale(SRGenerator.from_pretrained(model, fidelity=fidelity), as_image(lr)))
    left, top, width, height = box
    return [image.crop((left, top, left + width, top + height)) for image in (*images, original)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE:LEFT,TOP,WIDTH,HEIGHT")
    parser.add_argument("--model", default="clean")
    arguments = parser.parse_args()
    rows = []
    for item in arguments.pictures:
        path, _, numbers = item.rpartition(":")
        left, top, width, height = (int(number) for number in numbers.split(","))
        rows.append(row(Path(path), (left, top, width, height), arguments.model))
    widest = max(images[0].width for images in rows)
    sheet = Image.new(
        "RGB",
        (len(TITLES) * (widest + GAP) - GAP, LINE + sum(images[0].height + GAP for images in rows) - GAP),
        "white",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, title in enumerate(TITLES):
        draw.text((column * (widest + GAP) + 2, 2), title, fill="black", font=font)
    top = LINE
    for images in rows:
        for column, image in enumerate(images):
            sheet.paste(image, (column * (widest + GAP), top))
        top += images[0].height + GAP
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
