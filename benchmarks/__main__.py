"""Measures everything side by side: ``python -m benchmarks --data Set5/ --data Set14/ --lpips FILE``."""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contenders import filters, install_peers, ours, peers
from benchmarks.machine import describe
from benchmarks.quality import Result, compare
from benchmarks.report import (
    as_markdown,
    as_short_markdown,
    find_reference,
    insert_between_markers,
    plot_front,
    plot_scaling,
)
from benchmarks.scaling import SIDES, measure_scaling
from benchmarks.scores import read_scores, scores_table
from benchmarks.startup import measure_startup
from benchmarks.worker import SCALE
from benchmarks.workers import measure_workers
from sr_hub.claims import PUBLISHED
from sr_hub.degradations import DEGRADATIONS
from sr_hub.evaluation import Pair, find_pairs, load_samples
from sr_hub.generator import SRGenerator
from sr_hub.metrics import LPIPS
from sr_hub.pretrained import DEFAULT_MODEL
from sr_hub.sheet import to_picture

PARTS = ("quality", "scaling", "startup", "workers", "scores")
_USUAL = PARTS[:3]  # workers take minutes more, and the machine alone
SCORES = {"scores": PUBLISHED, "scores-photo": "photo, seed 0"}
"""Names of the README's markers around tables of scores, and the degradation that each shows."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts asked for and writes their results."""
    options = _parser().parse_args(arguments)
    if options.readme is not None:
        text = options.readme.read_text(encoding="utf-8")
        for name in ("benchmark", *SCORES):
            insert_between_markers(text, name, "")  # before the work, as it may take minutes
    options.out.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"machine": describe()}
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "startup" in options.parts:
            content["startup"] = measure_startup(folder, options.model[0] if options.model else None)
        if "scaling" in options.parts:
            generator = SRGenerator.from_pretrained(options.model[0] if options.model else DEFAULT_MODEL)
            points = measure_scaling(generator, [side for side in SIDES if side <= options.largest_side])
            content["scaling"] = [point.to_json() for point in points]
        if "workers" in options.parts:
            content["workers"] = measure_workers(folder)
        if "quality" in options.parts:
            results = _compare(options, folder, content)
    _write(options, content, results)
    return 0


def _compare(options: argparse.Namespace, folder: Path, content: dict[str, Any]) -> list[Result]:
    pairs, content["pictures"] = [], {}
    for data in options.data:
        found = find_pairs(data, SCALE)
        if options.degradation is not None:
            found = _degraded(found, options.degradation, folder / data.resolve().name)
            content["degradation"] = f"{options.degradation}, seed 0"
        if any(pair.lr is None for pair in found):
            raise ValueError(f"{data} must hold HR/ and LRx{SCALE}/")
        content["pictures"][data.resolve().name] = len(found)
        pairs += found
    if not pairs:
        raise ValueError("quality needs --data; or choose other --parts")
    contenders = [*ours(options.model), *filters()]
    if not options.no_peers:
        contenders += peers(install_peers(options.peers), options.opencv_model)
    lpips = None if options.lpips is None else LPIPS.from_file(options.lpips)
    results = compare(contenders, pairs, lpips=lpips, folder=folder, rounds=options.rounds)
    reference = find_reference(results)
    content["quality"] = [
        result.to_json()
        | {
            "time_over_ours": result.seconds / reference.seconds
            if result.seconds and reference and reference.seconds
            else None
        }
        for result in results
    ]
    return results


def _degraded(pairs: list[Pair], degradation: str, folder: Path) -> list[Pair]:
    """The pairs that ``sr-hub evaluate --degradation`` measures on, written to ``folder``."""
    folder.mkdir()
    plain = [replace(pair, lr=None) for pair in pairs]
    made = []
    for sample in load_samples(plain, SCALE, degradation=DEGRADATIONS[degradation]):
        files = []
        for kind, image in (("hr", sample.hr), ("lr", sample.lr)):
            files.append(folder / f"{sample.name}-{kind}.png")
            to_picture(image).save(files[-1])
        made.append(Pair(sample.name, *files))
    return made


def _write(options: argparse.Namespace, content: dict[str, Any], results: list[Result]) -> None:
    if set(options.parts) != {"scores"}:
        markdown = as_markdown(content, results)
        (options.out / "benchmark.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (options.out / "benchmark.md").write_text(markdown, encoding="utf-8")
        print(markdown)
    if results:
        plot_front(results, options.out / "quality_time.png")
    if content.get("scaling"):
        plot_scaling(content["scaling"], options.out / "scaling.png")
    if options.readme is not None:
        readme = options.readme.read_text(encoding="utf-8")  # as it is after the work
        if results:
            readme = insert_between_markers(readme, "benchmark", as_short_markdown(content, results))
        options.readme.write_text(insert_scores(readme, options.out), encoding="utf-8")


def insert_scores(readme: str, results: Path) -> str:
    """``readme`` with the tables of the evaluator's files in the tree ``results``."""
    scores = read_scores(results)
    for name, lr in SCORES.items():
        readme = insert_between_markers(readme, name, scores_table(scores, lr))
    return readme


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="with HR/ and LRx4/; may be repeated",
    )
    parser.add_argument(
        "--degradation",
        choices=sorted(DEGRADATIONS),
        help="make LR of HR by this, seed 0 (default: the LR pictures of --data)",
    )
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="LPIPS (AlexNet) weights, safetensors")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results"), help="folder of the results (default: %(default)s)"
    )
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="bundled name or folder; may be repeated (default: every bundled model)",
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=Path("build/peers"),
        metavar="FOLDER",
        help="virtual environment of the peers; made and filled from PyPI where there is none "
        "(default: %(default)s)",
    )
    parser.add_argument("--no-peers", action="store_true", help="leave other people's networks out")
    parser.add_argument(
        "--opencv-model",
        type=Path,
        metavar="FILE",
        help="weights for OpenCV's dnn_superres, such as EDSR_x4.pb",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(_USUAL),
        help=f"what to measure (default: {' '.join(_USUAL)})",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="times that each picture is enlarged (default: %(default)s)"
    )
    parser.add_argument(
        "--largest-side",
        type=int,
        default=SIDES[-1],
        metavar="PIXELS",
        help="of the input of the scaling part (default: %(default)s)",
    )
    parser.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="put the comparison and the scores in --out between the markers of this file",
    )
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, RuntimeError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        sys.exit(2)
