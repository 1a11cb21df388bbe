"""``sr-hub upscale``: enlarge a picture or a folder of pictures."""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError, cannot_keep, check_fits, read_picture, writable_format, write_picture
from sr_hub.inference import choose_dtype, upscale_picture

_FAILURES = (ValueError, OSError, RuntimeError, MemoryError)  # what one picture may raise, memory included


@dataclass(frozen=True)
class Plan:
    """Which file becomes which, and what is left out and why."""

    jobs: list[tuple[Path, Path]] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)


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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Enlarges the pictures.

    Returns:
        0, or 1 if a picture of a folder failed.

    Raises:
        ValueError, OSError, RuntimeError: With one sentence to show: wrong arguments, no such model, or a
            single picture that cannot be read or written.
    """
    single = not arguments.source.is_dir()
    if single:
        plan = _plan_file(arguments.source, arguments.target)
    else:
        plan = _plan_folder(arguments.source, arguments.target)
    for path, reason in plan.skipped:
        print(f"{path}: skipped, {reason}")
    for path, reason in plan.failed:
        print(f"sr-hub: {path}: {reason}", file=sys.stderr)
    if not plan.jobs:
        raise ImageError(f"{arguments.source}: expected pictures, got none that can be enlarged")
    generator = _load(arguments)
    failed = len(plan.failed)
    with _progress_bar(len(plan.jobs)) as bar:
        for source, target in plan.jobs:
            try:
                _enlarge(generator, source, target, arguments, bar)
            except _FAILURES as error:
                if single:
                    raise
                failed += 1
                text = (str(error).strip() or type(error).__name__).splitlines()[0]
                bar.write(f"sr-hub: {text if str(source) in text else f'{source}: {text}'}", file=sys.stderr)
    if not single:
        done = len(plan.jobs) + len(plan.failed) - failed
        print(f"{done} enlarged, {failed} failed, {len(plan.skipped)} skipped")
    return 1 if failed else 0


def _enlarge(
    generator: SRGenerator, source: Path, target: Path, arguments: argparse.Namespace, bar: "tqdm[None]"
) -> None:
    started, before = time.perf_counter(), bar.n
    try:
        picture = read_picture(source)
        height, width = picture.pixels.shape[:2]
        check_fits(target, generator.scale * height, generator.scale * width)
        for notice in (*picture.notices, *cannot_keep(picture, target)):
            bar.write(f"{source}: {notice}")
        target.parent.mkdir(parents=True, exist_ok=True)
        enlarged = upscale_picture(
            generator,
            picture,
            tile_size=arguments.tile_size,
            precision=arguments.precision,
            progress=lambda done, total: bar.update(before + done / total - bar.n),
        )
        write_picture(enlarged, target)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise ImageError(f"{source}: not enough memory; a smaller --tile-size needs less") from error
    finally:
        bar.update(before + 1 - bar.n)
    seconds = time.perf_counter() - started
    size = f"{generator.scale * width}x{generator.scale * height}"
    bar.write(f"{target}: {width}x{height} to {size}, {seconds:.1f} s")


def _load(arguments: argparse.Namespace) -> SRGenerator:
    """The model on its device; says both, and the precision."""
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device} needs a CUDA GPU and a PyTorch built for it, got none")
    dtype = choose_dtype(device, arguments.precision)
    named = {} if arguments.model is None else {"name": arguments.model}
    generator = SRGenerator.from_pretrained(**named, fidelity=arguments.fidelity).to(device)
    where = f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)
    print(f"model {arguments.model or 'default'} on {where}, {str(dtype).removeprefix('torch.')}")
    return generator


def _progress_bar(count: int) -> "tqdm[None]":
    shape = "{percentage:3.0f}% |{bar}| {elapsed} passed, {remaining} to go"
    return tqdm(total=count, file=sys.stderr, disable=None, bar_format=shape, smoothing=0.1)


def _plan_file(source: Path, target: Path) -> Plan:
    if not source.exists():
        raise ImageError(f"{source}: expected a picture or folder, got no such file")
    if target.is_dir() or not target.suffix:
        target = target / _target_name(source)
    elif not target.parent.is_dir():
        raise ImageError(f"{target}: expected an existing folder for the result, got {target.parent}")
    writable_format(target)
    if target.exists() and target.samefile(source):
        raise ImageError(f"{target}: expected another file than the input, got the input itself")
    return Plan(jobs=[(source, target)])


def _plan_folder(source: Path, target: Path) -> Plan:
    if target.exists() and not target.is_dir():
        raise ImageError(f"{target}: expected a folder for the pictures of a folder, got a file")
    if target.exists() and target.samefile(source):
        raise ImageError(f"{target}: expected another folder than the input, got the input itself")
    plan = Plan()
    taken: dict[Path, Path] = {}
    for path in _files_of(source, target):
        if not _is_picture(path):
            plan.skipped.append((path, "not a picture"))
            continue
        place = target / path.relative_to(source).with_name(_target_name(path))
        if place in taken:
            plan.failed.append((path, f"would be written to {place}, as {taken[place]} is"))
            continue
        taken[place] = path
        plan.jobs.append((path, place))
    return plan


def _files_of(source: Path, target: Path) -> Iterator[Path]:
    inside = target.resolve()
    for path in sorted(source.rglob("*")):
        if path.is_file() and inside not in path.resolve().parents:
            yield path


def _target_name(source: Path) -> str:
    """The input's name where its suffix can be written; else with ``.png`` at its end."""
    try:
        writable_format(source)
    except ImageError:
        return f"{source.name}.png"
    return source.name


def _is_picture(path: Path) -> bool:
    """By suffix, or, where that says nothing, by what Pillow makes of its first bytes."""
    if path.name.startswith("."):
        return False
    if path.suffix:
        return Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN
    try:
        with Image.open(path):
            return True
    except Exception:  # on hostile bytes anything; a file without suffix that does not open is no picture
        return False


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text}")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text}")
    return value
