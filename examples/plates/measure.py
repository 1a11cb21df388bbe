"""What a model of your own domain gains over the general one, and where it begins to invent.

    python examples/plates/measure.py --data plates/held-out --domain runs/plates/model --out plates/results

For each folder of ``--data`` (one letter height each) LR images are made by ``--degradation``, enlarged by
both models and scored by the code of ``sr-hub evaluate``. Then tesseract reads LR, bicubic, general, domain
and original. Where the plate lies is known to all five, so only the reading is measured.

Never use a result to identify a vehicle or a person: this program measures how often that would go wrong.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ocr import Reading, character_accuracy, cut_upright, plain, read
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sr_hub.evaluation import Evaluation, Sample
from sr_hub.measuring import measure
from sr_hub.metrics import LPIPS
from sr_hub.pretrained import DEFAULT_MODEL, find_model

COLUMNS = ("LR", "bicubic", "general", "domain", "original")
CONFIDENT = 80
"""Tesseract's confidence, 0 to 100, from which a plate counts as read with confidence."""


@dataclass
class Plate:
    """One held-out plate: its label as `render.Label` has it, its pictures and readings by column."""

    name: str
    text: str
    light: bool
    corners: np.ndarray
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)

    def is_right(self, column: str) -> bool:
        """Whether every character was read as it is."""
        return self.readings[column].text == plain(self.text)

    def is_sure(self, column: str) -> bool:
        """Whether it was read with confidence, right or wrong."""
        return self.readings[column].confidence >= CONFIDENT

    def misleads(self, column: str) -> bool:
        """Whether it was read with confidence, and wrong."""
        return self.is_sure(column) and not self.is_right(column)

    def is_invented(self) -> bool:
        """Whether the domain model misleads where the original is read right and bicubic does not mislead."""
        return self.misleads("domain") and self.is_right("original") and not self.misleads("bicubic")


def load_plates(folder: Path) -> dict[str, Plate]:
    """The plates that ``plates.json`` of ``folder`` tells of, by file name.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = folder / "plates.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: --data must be the folder held-out that render.py wrote")
    labels = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Plate(name, **label | {"corners": np.array(label["corners"])}) for name, label in labels.items()
    }


def enlarge(
    plates: dict[str, Plate], folder: Path, models: dict[str, str], fidelity: float, **settings: Any
) -> dict[str, Evaluation]:
    """Fills the pictures of ``plates``; returns the scores of each of ``models``, named by column.

    ``fidelity`` is for models with two ends; ``settings`` are those of `sr_hub.measuring.measure`.
    """
    scores = {}
    for column, model in models.items():

        def keep(sample: Sample, bicubic: Tensor, sr: Tensor, column: str = column) -> None:
            images = {"LR": sample.lr, "bicubic": bicubic, column: sr, "original": sample.hr}
            plates[sample.name].pictures |= {name: _to_pil(image) for name, image in images.items()}

        blend = fidelity if find_model(model).fidelity is not None else None
        scores[column] = measure(model, folder, fidelity=blend, observers=[keep], **settings)
    return scores


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].mul(255).round().byte().permute(1, 2, 0).contiguous().numpy())


def read_all(plates: Sequence[Plate]) -> None:
    """Fills the readings of ``plates``."""
    places = [(plate, column) for plate in plates for column in COLUMNS]
    texts = []
    for plate, column in places:
        scale = plate.pictures[column].width / plate.pictures["original"].width  # LR pictures are smaller
        texts.append(cut_upright(plate.pictures[column], plate.corners * scale, plate.light))
    for (plate, column), reading in zip(places, read(texts), strict=True):
        plate.readings[column] = reading


def summarise(plates: Sequence[Plate]) -> dict[str, dict[str, float]]:
    """By column: shares of characters and plates read right, and of plates read with confidence."""
    return {
        column: {
            "characters": float(
                np.mean([character_accuracy(p.readings[column].text, plain(p.text)) for p in plates])
            ),
            "plates": float(np.mean([p.is_right(column) for p in plates])),
            "confident": float(np.mean([p.is_sure(column) for p in plates])),
            "confident and wrong": float(np.mean([p.misleads(column) for p in plates])),
        }
        for column in COLUMNS
    }


def save_sheet(path: Path, plates: Sequence[Plate], size: tuple[int, int] = (240, 84)) -> None:
    """A row for each plate: ``size`` HR pixels of each picture, and below what was read, red where wrong."""
    width, height = size
    face = ImageFont.load_default(14)
    sheet = Image.new("RGB", (len(COLUMNS) * (width + 4), 20 + len(plates) * (height + 24)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, column in enumerate(COLUMNS):
        draw.text((index * (width + 4) + 2, 1), column, "black", face)
    for row, plate in enumerate(plates):
        x, y = plate.corners.mean(axis=0) - np.array(size) / 2
        for index, column in enumerate(COLUMNS):
            place = index * (width + 4), 20 + row * (height + 24)
            picture = plate.pictures[column].resize(plate.pictures["original"].size, Image.Resampling.NEAREST)
            sheet.paste(picture.crop((round(x), round(y), round(x) + width, round(y) + height)), place)
            reading = plate.readings[column]
            draw.text(
                (place[0] + 2, place[1] + height + 2),
                f"{reading.text or 'nothing'}  {reading.confidence} %",
                "darkgreen" if plate.is_right(column) else "red",
                face,
            )
    sheet.save(path)


def to_json(plates: Sequence[Plate], scores: dict[str, Evaluation]) -> str:
    """Settings, means and one line for each plate: ``[text, confidence]`` by column."""
    means = {"bicubic": asdict(scores["domain"].bicubic)}
    means |= {column: asdict(evaluation.sr) for column, evaluation in scores.items()}
    head = {
        "settings": {column: evaluation.settings for column, evaluation in scores.items()},
        "scores": means,
        "readings": summarise(plates),
    }
    rows = [
        json.dumps(
            {"name": p.name, "text": p.text} | {c: [r.text, r.confidence] for c, r in p.readings.items()}
        )
        for p in plates
    ]
    return json.dumps(head, indent=1)[:-2] + ',\n "plates": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"


def main() -> int:
    """The exit code: 1 if a model, a folder, a file or tesseract is missing."""
    parser = argparse.ArgumentParser(description="Score a general and a domain model on held-out plates.")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="plates/held-out")
    parser.add_argument("--general", default=DEFAULT_MODEL, metavar="MODEL", help="default: %(default)s")
    parser.add_argument("--domain", required=True, metavar="MODEL", help="name, folder or Hub repository")
    parser.add_argument(
        "--fidelity", type=float, default=1.0, help="of models with two ends (default: %(default)s)"
    )
    parser.add_argument("--degradation", default="photo", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the degradation (default: %(default)s)")
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="LPIPS (AlexNet) weights, safetensors")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for JSON and pictures")
    options = parser.parse_args()
    try:
        run(options)
    except (OSError, RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """Measures each folder, prints a table and writes the files."""
    if not options.data.is_dir():
        raise FileNotFoundError(f"no folder {options.data}: render.py makes it")
    options.out.mkdir(parents=True, exist_ok=True)
    lpips = None if options.lpips is None else LPIPS.from_file(options.lpips)
    invented: list[Plate] = []
    print("In % of the plates; read right: all five columns, else: bicubic / general / domain\n")
    print("| letters | read right | confident and wrong | confident | PSNR-Y dB | LPIPS |")
    print("|---|---|---|---|---|---|")
    for folder in sorted(path for path in options.data.iterdir() if path.is_dir()):
        plates = load_plates(folder)
        scores = enlarge(
            plates,
            folder,
            {"general": options.general, "domain": options.domain},
            fidelity=options.fidelity,
            degradation=options.degradation,
            seed=options.seed,
            lpips=lpips,
        )
        found = list(plates.values())
        read_all(found)
        (options.out / f"{folder.name}.json").write_text(to_json(found, scores), encoding="utf-8")
        save_sheet(options.out / f"{folder.name}.png", found[:6])
        invented += [plate for plate in found if plate.is_invented()]
        print(_table_row(folder.name, summarise(found), scores))
    invented.sort(key=lambda plate: -plate.readings["domain"].confidence)
    if invented:
        save_sheet(options.out / "invented.png", invented[:6])


def _table_row(name: str, readings: dict[str, dict[str, float]], scores: dict[str, Evaluation]) -> str:
    means = [scores["domain"].bicubic, scores["general"].sr, scores["domain"].sr]
    shares = [("plates", COLUMNS), ("confident and wrong", COLUMNS[1:4]), ("confident", COLUMNS[1:4])]
    cells = [" / ".join(f"{100 * readings[column][key]:.0f}" for column in which) for key, which in shares]
    cells.append(" / ".join(f"{mean.psnr_y:.2f}" for mean in means))
    cells.append(" / ".join("-" if mean.lpips is None else f"{mean.lpips:.3f}" for mean in means))
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
