"""``sr-hub upscale``: enlarge a picture or a folder of pictures."""

import argparse
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

import torch
from tqdm import tqdm

from sr_hub.enlarging import Enlarger, Loaded, Made, Outcome
from sr_hub.folders import Job, errors_file, plan_file, plan_folder, sentence, shown, tidy, write_errors
from sr_hub.generator import SRGenerator
from sr_hub.hub_files import HubOptions
from sr_hub.images import MAX_PIXELS, ImageError
from sr_hub.inference import choose_dtype
from sr_hub.memory import parse_bytes
from sr_hub.pipeline import Stages, process
from sr_hub.pretrained import DEFAULT_MODEL, find_model
from sr_hub.settings import Limits, Model, Settings

Number = TypeVar("Number", int, float)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``upscale`` to the command line."""
    parser = subparsers.add_parser(
        "upscale",
        help="enlarge a picture or a folder of pictures",
        description="Enlarge a picture, or every picture of a folder tree. Depth, alpha, colour profile, "
        "EXIF and resolution are kept where the format written can hold them; what it cannot hold is said.",
    )
    parser.add_argument("source", type=Path, metavar="IN", help="picture or folder")
    parser.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="picture, whose suffix chooses the format, or folder, where the pictures keep names and formats",
    )
    parser.add_argument("--model", help="bundled name, model folder or Hub repository user/name")
    parser.add_argument("--revision", help="branch, tag or commit of a repository (default: main)")
    parser.add_argument(
        "--fidelity",
        type=_share,
        metavar="0..1",
        help="1 is true to the input, 0 invents detail, for models with two ends (default: the model's)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "bf16", "fp16", "fp32"),
        default="auto",
        help="of the network; auto takes bf16 where it is fast and the picture has 8 bits (default: auto)",
    )
    parser.add_argument(
        "--tile-size",
        type=_count,
        metavar="PIXELS",
        help="side of the tiles, in pixels of the input; smaller needs less memory (default: the fastest)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1 (default: the first CUDA GPU, else the CPU)")
    size = parser.add_argument_group(
        "size", "Of the result. Another size than the model's is resized from that, bicubic."
    )
    size.add_argument("--scale", type=_positive, metavar="FACTOR", help="times that of the input")
    size.add_argument("--width", type=_count, metavar="PIXELS", help="the height follows, unless given, too")
    size.add_argument("--height", type=_count, metavar="PIXELS", help="the width follows, unless given, too")
    parser.add_argument(
        "--animated", action="store_true", help="all frames of GIF, WebP and APNG (default: the first)"
    )
    quality = parser.add_argument_group("quality")
    quality.add_argument(
        "--ensemble", action="store_true", help="mean over flips and turns, for --fidelity 1; 8 times slower"
    )
    quality.add_argument(
        "--consistency",
        type=_number,
        default=0,
        metavar="STEPS",
        help="bring the result, shrunk again, to the input; for inputs shrunk bicubic (default: 0)",
    )
    metadata = parser.add_argument_group("metadata")
    metadata.add_argument("--strip", action="store_true", help="drop all of it; colours become sRGB")
    metadata.add_argument(
        "--no-provenance",
        dest="provenance",
        action="store_false",
        help="do not write into the result which model and settings made it",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-memory",
        type=_bytes,
        metavar="AMOUNT",
        help="for pictures and network, such as 2G; tiles and strips follow (default: half of what is free)",
    )
    limits.add_argument(
        "--max-pixels",
        type=_count,
        metavar="PIXELS",
        help=f"of an input, against decompression bombs (default: {MAX_PIXELS})",
    )
    folders = parser.add_argument_group(
        "folders",
        "A picture whose result is there, made of the same content with the same settings, is left.",
    )
    folders.add_argument("--overwrite", action="store_true", help="make every result anew")
    folders.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="the I-th, from 1, of N parts of the folder, by its files' names: for N machines",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Enlarges the pictures.

    Returns:
        0, or 1 if a picture of a folder failed.

    Raises:
        ValueError, OSError, RuntimeError: With one sentence to show: wrong arguments, no such model, or a
            single picture that cannot be read or written.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # what it says of broken files, we say by name
    if arguments.source.is_dir():
        return _run_folder(arguments)
    if arguments.shard:
        raise ValueError(f"--shard needs a folder of pictures, got {arguments.source}")
    plan = plan_file(arguments.source, arguments.target)
    for job, _, error in _enlarge(plan.jobs, arguments):
        if error is not None:
            raise RuntimeError(sentence(job, error)) from error
    return 0


def _run_folder(arguments: argparse.Namespace) -> int:
    plan = plan_folder(arguments.source, arguments.target)
    if not plan.jobs and not plan.failed:
        raise ImageError(f"{arguments.source}: expected pictures, got none that can be enlarged")
    if arguments.shard:
        plan = plan.share(*arguments.shard)
    for name, reason in plan.skipped.items():
        print(f"{shown(arguments.source / name)}: skipped, {reason}")
    for name, reason in plan.failed.items():
        print(f"sr-hub: {shown(arguments.source / name)}: {shown(reason)}", file=sys.stderr)
    tidy(plan)
    counts: Counter[str] = Counter()
    for job, outcome, error in _enlarge(plan.jobs, arguments) if plan.jobs else ():
        if error is not None:
            plan.failed[job.name] = sentence(job, error)
        else:
            counts["made" if outcome and outcome.target_size else "kept"] += 1
    errors = errors_file(arguments.target, arguments.shard)
    write_errors(errors, plan)
    print(
        f"{counts['made']} enlarged, {counts['kept']} done before, {len(plan.failed)} failed, "
        f"{len(plan.skipped)} skipped{f': see {shown(errors)}' if plan.failed else ''}"
    )
    return 1 if plan.failed else 0


def _enlarge(
    jobs: list[Job], arguments: argparse.Namespace
) -> Iterator[tuple[Job, Outcome | None, Exception | None]]:
    """Each job when it is done; says what became of it."""
    settings = Settings(**{field.name: getattr(arguments, field.name) for field in fields(Settings)})
    limits = Limits(tile_size=arguments.tile_size, max_pixels=arguments.max_pixels)
    if arguments.max_memory is not None:
        limits = replace(limits, memory=arguments.max_memory)
    generator, model = _load(arguments)
    enlarger = Enlarger(generator, settings, model, limits, overwrite=arguments.overwrite)
    with _progress_bar(len(jobs)) as bar:

        def make(job: Job, loaded: Loaded | None) -> Made | None:
            before = bar.n
            return enlarger.make(job, loaded, lambda done, all: bar.update(before + done / all - bar.n))

        stages = Stages(enlarger.weigh, enlarger.read, make, enlarger.write)
        results = process(jobs, stages, memory=enlarger.memory_under_way)
        for count, (job, outcome, error) in enumerate(results, start=1):
            bar.update(max(0, count - bar.n))
            if outcome is not None:
                _tell(job, outcome, bar)
            elif error is not None and job.record is not None:  # that of a single picture is shown at the end
                bar.write(f"sr-hub: {sentence(job, error)}", file=sys.stderr)
            yield job, outcome, error


def _tell(job: Job, outcome: Outcome, bar: "tqdm[None]") -> None:
    for notice in outcome.notices:
        bar.write(f"{shown(job.source)}: {notice}")
    if outcome.source_size and outcome.target_size:
        sizes = (f"{width}x{height}" for width, height in (outcome.source_size, outcome.target_size))
        share = outcome.consistent
        agreement = "" if share is None else f", {share:.1%} of the input given back"
        bar.write(f"{shown(job.target)}: {' to '.join(sizes)}, {outcome.seconds:.1f} s{agreement}")


def _load(arguments: argparse.Namespace) -> tuple[SRGenerator, Model]:
    """The model on its device, and what results say of it; tells both, and the precision."""
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} needs a CUDA GPU and a PyTorch built for it, got none")
    dtype = choose_dtype(device, arguments.precision)
    files = find_model(arguments.model or DEFAULT_MODEL, HubOptions(revision=arguments.revision))
    # By its commit, if it has one, so that these are the files just found.
    revision = files.revision or arguments.revision
    generator = SRGenerator.from_pretrained(files.name, fidelity=arguments.fidelity, revision=revision)
    where = f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)
    print(f"model {shown(files.name)} on {where}, {str(dtype).removeprefix('torch.')}")
    return generator.to(device), Model.of_files(files, arguments.fidelity)


def _progress_bar(count: int) -> "tqdm[None]":
    shape = "{percentage:3.0f}% |{bar}| {elapsed} passed, {remaining} to go"
    return tqdm(total=count, file=sys.stderr, disable=None, bar_format=shape, smoothing=0.1)


def _count(text: str) -> int:
    return _number_that(lambda value: value >= 1, text, int, "a whole number of at least 1")


def _number(text: str) -> int:
    return _number_that(lambda value: value >= 0, text, int, "a whole number of at least 0")


def _positive(text: str) -> float:
    return _number_that(lambda value: 0 < value < float("inf"), text, float, "a number above 0")


def _share(text: str) -> float:
    return _number_that(lambda value: 0 <= value <= 1, text, float, "a number from 0 to 1")


def _number_that(
    fits: Callable[[Number], bool], text: str, kind: Callable[[str], Number], expected: str
) -> Number:
    """``text`` as a number that `fits`; argparse shows the message of its own error alone."""
    with contextlib.suppress(ValueError):
        value = kind(text)
        if fits(value):
            return value
    raise argparse.ArgumentTypeError(f"expected {expected}, got {text}")


def _bytes(text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, such as 2/8, got {text}")
    return int(index), int(count)
