"""What ``--consistency`` does to PSNR-Y and to the share of the input given back.

``python -m benchmarks.consistency --data Set5/ --data Set14/``
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sr_hub.consistency import Consistent, share_consistent
from sr_hub.evaluation import find_pairs
from sr_hub.generator import SRGenerator
from sr_hub.metrics import psnr_y
from sr_hub.pretrained import DEFAULT_MODEL

STEPS = (0, 1, 2, 5, 10)


def measure_consistency(
    generator: SRGenerator, folder: Path, steps: Sequence[int] = STEPS
) -> list[dict[str, float]]:
    """For each number of steps, the first of which is 0, over the pictures of a set.

    Returns:
        ``steps``; ``share``, the mean share of the input given back within 1/255, and ``least``, that of the
        worst picture; ``psnr_y``; and its change from no steps, ``change``, and ``worst`` of a picture.
    """
    scale, rows, before = generator.scale, [], None
    for count in steps:
        network = Consistent(generator, count) if count else generator
        shares, scores = [], []
        for pair in find_pairs(folder, scale):
            if pair.lr is None:
                raise ValueError(f"{folder} must hold HR/ and LRx{scale}/")
            lr, hr = _read(pair.lr), _read(pair.hr)
            with torch.inference_mode():
                sr = network(lr).clamp(0, 1).mul(255).round().div(255)
            shares.append(share_consistent(lr, sr, scale))
            scores.append(float(psnr_y(sr, hr, scale)))
        before = before or scores
        changes = [after - score for after, score in zip(scores, before, strict=True)]
        rows.append(
            {
                "steps": count,
                "share": statistics.mean(shares),
                "least": min(shares),
                "psnr_y": statistics.mean(scores),
                "change": statistics.mean(changes),
                "worst": min(changes),
            }
        )
    return rows


def as_markdown(rows: Sequence[dict[str, float]]) -> str:
    """One row for each number of steps."""
    lines = [
        "| steps | given back | least | PSNR-Y, dB | change | worst |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['steps']} | {row['share']:.2%} | {row['least']:.2%} | {row['psnr_y']:.3f} "
        f"| {row['change']:+.3f} | {row['worst']:+.3f} |"
        for row in rows
    ]
    return "\n".join(lines)


def _read(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table for each set and fidelity."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consistency", description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="FOLDER")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--fidelity", type=float, action="append", metavar="0..1")
    options = parser.parse_args(arguments)
    for fidelity in options.fidelity or [None]:
        generator = SRGenerator.from_pretrained(options.model, fidelity=fidelity)
        for folder in options.data:
            name = f"{options.model}, fidelity {'by default' if fidelity is None else f'{fidelity:g}'}"
            print(
                f"{name}, {folder.resolve().name}:\n\n{as_markdown(measure_consistency(generator, folder))}\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
