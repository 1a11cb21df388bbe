"""Ours beside Real-ESRGAN under damage that the training did and did not draw.

    python -m benchmarks.damages --data BSD100/ --lpips FILE --vgg FILE

On every eighth picture of a set, beginning with the fourth. LPIPS is a loss of the bundled detail ends, so a
second distance stands beside it: `VGG19Distance`.
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from benchmarks.contenders import Contender, filters, install_peers, ours, peers
from benchmarks.machine import describe
from benchmarks.quality import Result, compare
from benchmarks.report import insert_between_markers
from benchmarks.worker import SCALE
from sr_hub.degradations import DEGRADATIONS
from sr_hub.evaluation import Pair, find_pairs
from sr_hub.losses import VGG19Features
from sr_hub.metrics import LPIPS, round_to_8_bits
from sr_hub.sheet import to_picture

MARKER = "damages"
_Random = np.random.Generator


class VGG19Distance:
    """Squared difference of VGG19's features, each place's scaled to length 1; 0 for equal, lower is better.

    Of five layers after ReLU, mean over places, summed: LPIPS (arXiv:1801.03924, eq. 1) without its learned
    weights. Nothing here was trained by it.

    Args:
        path: VGG19's weights, as ``VGG19Features.load`` reads them.
    """

    layers = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")

    def __init__(self, path: Path) -> None:
        self.features = VGG19Features(list(self.layers))
        self.features.load(path)

    @torch.inference_mode()
    def __call__(self, sr: Tensor, hr: Tensor) -> Tensor:
        """The distance of each pair, ``(N,)``, of ``(N, 3, H, W)`` in [0, 1]; rounded to 8 bits here."""
        x, y = (self.features(round_to_8_bits(image)) for image in (sr, hr))
        differences = [F.normalize(x[n].relu(), dim=1) - F.normalize(y[n].relu(), dim=1) for n in self.layers]
        return torch.stack([d.square().sum(dim=1).mean(dim=(1, 2)) for d in differences]).sum(dim=0)


def photo(hr: Image.Image, random: _Random) -> Image.Image:
    """The degradation ``photo``, which the family of that name learnt from."""
    image = torch.tensor(np.asarray(hr)).permute(2, 0, 1)[None].float() / 255
    generator = torch.Generator().manual_seed(int(random.integers(1 << 30)))
    return to_picture(DEGRADATIONS["photo"](image, SCALE, [generator]))


def web(hr: Image.Image, random: _Random) -> Image.Image:
    """Lanczos, JPEG 60."""
    return _jpeg(_shrunk(hr, Image.Resampling.LANCZOS), 60)


def phone(hr: Image.Image, random: _Random) -> Image.Image:
    """Gaussian blur of 1.6 HR pixels, bicubic, noise of 6/255, JPEG 80."""
    blurred = hr.filter(ImageFilter.GaussianBlur(1.6))
    return _jpeg(_noisy(_shrunk(blurred, Image.Resampling.BICUBIC), 6, random), 80)


def old(hr: Image.Image, random: _Random) -> Image.Image:
    """Gaussian blur of 3 HR pixels, bilinear, noise of 12/255, JPEG 40."""
    blurred = hr.filter(ImageFilter.GaussianBlur(3))
    return _jpeg(_noisy(_shrunk(blurred, Image.Resampling.BILINEAR), 12, random), 40)


DAMAGES: dict[str, Callable[[Image.Image, _Random], Image.Image]] = {
    "photo": photo,
    "web": web,
    "phone": phone,
    "old": old,
}


def damaged(pairs: Sequence[Pair], damage: str, folder: Path) -> list[Pair]:
    """The pairs with LR pictures made of HR, both written to ``folder``; the draws are always the same."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    made = []
    for pair in pairs:
        with Image.open(pair.hr) as image:
            width, height = (side // SCALE * SCALE for side in image.size)
            hr = image.convert("RGB").crop((0, 0, width, height))
        files = [folder / f"{Path(pair.name).stem}-{kind}.png" for kind in ("hr", "lr")]
        hr.save(files[0])
        DAMAGES[damage](hr, random).save(files[1])
        made.append(Pair(pair.name, *files))
    return made


def as_table(results: dict[str, list[Result]]) -> str:
    """Markdown, ``PSNR-Y / LPIPS / VGG19 distance``: a row for each contender, a column for each damage."""
    lines = [f"| | {' | '.join(results)} |", f"|---{'|---' * len(results)}|"]
    for row in zip(*results.values(), strict=True):
        lines.append(f"| {row[0].name} | {' | '.join(_cell(result) for result in row)} |")
    return "\n".join(lines)


def _cell(result: Result) -> str:
    values = ((result.psnr_y, 2), (result.lpips, 3), (result.vgg19, 3))
    numbers = " / ".join(f"{value:.{digits}f}" for value, digits in values if value is not None)
    return numbers if result.error is None else f"could not run: {result.error}"


def _scores(result: Result) -> dict[str, Any]:
    """Without times, of which one of each picture tells nothing."""
    names = ("name", "psnr_y", "lpips", "vgg19", "error")
    return {name: value for name, value in asdict(result).items() if name in names}


def _shrunk(hr: Image.Image, filter: Image.Resampling) -> Image.Image:
    return hr.resize((hr.width // SCALE, hr.height // SCALE), filter)


def _noisy(lr: Image.Image, deviation: float, random: _Random) -> Image.Image:
    values = np.asarray(lr) + random.normal(0, deviation, (lr.height, lr.width, 3))
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def _jpeg(lr: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    lr.save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return image.convert("RGB")


def _contenders(models: list[str] | None, peers_folder: Path | None) -> list[Contender]:
    """Ours at each end once, in the precision that this machine takes by itself, bicubic, Real-ESRGAN."""
    found: dict[tuple[str, float | None], Contender] = {}
    for c in ours(models):  # what comes first is in that precision
        found.setdefault((c.options["model"], c.options["fidelity"]), c)
    mine = [replace(c, name=c.name.rpartition(",")[0]) for c in found.values()]
    others = [] if peers_folder is None else peers(install_peers(peers_folder))
    return [*mine, filters()[0], *(c for c in others if c.name.startswith("Real-ESRGAN x4plus"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, writes ``damages.json`` and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.damages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--lpips", type=Path, required=True, metavar="FILE")
    parser.add_argument("--vgg", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), metavar="FOLDER")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="FOLDER")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the table between its markers")
    options = parser.parse_args(arguments)
    if options.markdown is not None:  # before the work, as it takes minutes
        insert_between_markers(options.markdown.read_text(encoding="utf-8"), MARKER, "")
    pairs = find_pairs(options.data, SCALE, use_lr=False)[3::8]
    if not pairs:
        raise ValueError(f"{options.data} must hold at least 4 pictures")
    contenders = _contenders(options.model, None if options.no_peers else options.peers)
    lpips, vgg19 = LPIPS.from_file(options.lpips), VGG19Distance(options.vgg)
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory() as name:
        for damage in DAMAGES:
            folder = Path(name) / damage
            made = damaged(pairs, damage, folder)
            results[damage] = compare(contenders, made, lpips=lpips, vgg19=vgg19, folder=folder, rounds=1)
    content: dict[str, Any] = {
        "machine": describe(),
        "pictures": [pair.name for pair in pairs],
        "damages": {name: damage.__doc__ for name, damage in DAMAGES.items()},
        "quality": {damage: [_scores(result) for result in found] for damage, found in results.items()},
    }
    table = as_table(results)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "damages.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.markdown is not None:
        text = options.markdown.read_text(encoding="utf-8")  # as it is now
        options.markdown.write_text(insert_between_markers(text, MARKER, table), encoding="utf-8")
    print(table)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, RuntimeError) as error:
        print(f"benchmarks.damages: {error}", file=sys.stderr)
        sys.exit(2)
