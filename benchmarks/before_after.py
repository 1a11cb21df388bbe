"""Draws the pictures of README and docs: LR | bicubic | a column for each model and end | original.

    python benchmarks/before_after.py docs/before_after.png PICTURE:LEFT,TOP,WIDTH,HEIGHT ...

LEFT, TOP, WIDTH and HEIGHT are pixels of the original, multiples of 4. LR is the original shrunk 4x by
a degradation; ``--column MODEL:FIDELITY`` replaces the two ends of the model ``clean``.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sr_hub import SRGenerator, upscale
from sr_hub.degradations import DEGRADATIONS
from sr_hub.resample import upscale_bicubic
from sr_hub.sheet import to_picture

GAP, LINE = 6, 24  # pixels


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def row(
    path: Path, box: tuple[int, int, int, int], columns: list[tuple[str, float]], degradation: str, seed: int
) -> list[Image.Image]:
    """The crops of one picture, all of the size of ``box``."""
    with Image.open(path) as opened:
        width, height = (side // 4 * 4 for side in opened.size)
        original = opened.convert("RGB").crop((0, 0, width, height))
    generator = torch.Generator().manual_seed(seed)
    lr = DEGRADATIONS[degradation](as_tensor(original), 4, [generator])  # type: ignore[index]
    images = [
        to_picture(lr).resize(original.size, Image.Resampling.NEAREST),
        to_picture(upscale_bicubic(lr, 4)),
    ]
    for model, fidelity in columns:
        images.append(upscale(SRGenerator.from_pretrained(model, fidelity=fidelity), to_picture(lr)))
    left, top, width, height = box
    return [image.crop((left, top, left + width, top + height)) for image in (*images, original)]


def model_and_fidelity(text: str) -> tuple[str, float]:
    """``MODEL:FIDELITY``."""
    model, _, fidelity = text.rpartition(":")
    return model, float(fidelity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE:LEFT,TOP,WIDTH,HEIGHT")
    parser.add_argument("--column", type=model_and_fidelity, action="append", metavar="MODEL:FIDELITY")
    parser.add_argument("--degradation", choices=sorted(DEGRADATIONS), default="bicubic")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; the next have the next")
    arguments = parser.parse_args()
    columns = arguments.column or [("clean", 1.0), ("clean", 0.0)]
    ends = {1.0: "fidelity", 0.0: "detail"}
    titles = [
        "input",
        "bicubic",
        *(f"{name}, {ends.get(share, share)}" for name, share in columns),
        "original",
    ]
    rows = []
    for index, item in enumerate(arguments.pictures):
        path, _, numbers = item.rpartition(":")
        left, top, width, height = (int(number) for number in numbers.split(","))
        box = (left, top, width, height)
        rows.append(row(Path(path), box, columns, arguments.degradation, arguments.seed + index))
    widest = max(images[0].width for images in rows)
    sheet = Image.new(
        "RGB",
        (len(titles) * (widest + GAP) - GAP, LINE + sum(images[0].height + GAP for images in rows) - GAP),
        "white",
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, title in enumerate(titles):
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
