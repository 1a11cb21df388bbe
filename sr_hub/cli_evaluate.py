"""``sr-hub evaluate``: scores of a model on a folder of pictures, beside bicubic's."""

import argparse
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sr_hub.degradations import DEGRADATIONS
from sr_hub.evaluation import Pair, evaluate, find_pairs, load_samples
from sr_hub.generator import DEFAULT_FIDELITY, SRGenerator
from sr_hub.metrics import LPIPS
from sr_hub.precision import PRECISIONS, resolve_precision
from sr_hub.pretrained import find_model
from sr_hub.sheet import WorstCrops, save_sheet
from sr_hub.tiling import map_tiles

_TILE_SIZE = 512  # LR pixels; bounds the memory of large pictures


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``evaluate`` to the command line; its ``run`` takes the parsed arguments."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a model on known pictures, beside bicubic",
        description="PSNR-Y, SSIM-Y, LR-consistency and LPIPS of a model on known pictures, beside bicubic.",
    )
    parser.add_argument("model", help="bundled name, model folder or Hub repository user/name")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="tree of HR images, or a folder with HR/ and LRx4/ (LRx2/, LRx3/) inside",
    )
    parser.add_argument(
        "--fidelity", type=float, help="blend of a two-ended model, 0 (detail) to 1 (fidelity)"
    )
    parser.add_argument(
        "--degradation",
        choices=sorted(DEGRADATIONS),
        help="make LR images of the HR ones so (default: use the LR folder; bicubic where there is none)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the degradation (default: %(default)s)"
    )
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="LPIPS (AlexNet) weights, safetensors")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="fp32", help="of the network (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all scores as JSON")
    parser.add_argument("--markdown", type=Path, metavar="OUT", help="write the table as Markdown")
    parser.add_argument(
        "--worst", type=Path, metavar="OUT.png", help="write the three worst crops as a picture"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Evaluates, prints the table and writes the files asked for.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: With one sentence to show, when a model, folder or
            file is missing or bad.
    """
    for path in (arguments.json, arguments.markdown, arguments.worst):
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into")
    if arguments.seed < 0:
        raise ValueError(f"seed must not be negative, got {arguments.seed}")
    generator = SRGenerator.from_pretrained(arguments.model, fidelity=arguments.fidelity)
    lpips = None if arguments.lpips is None else LPIPS.from_file(arguments.lpips)
    scale = generator.scale
    pairs = find_pairs(arguments.data, scale, use_lr=arguments.degradation is None)
    samples = load_samples(
        pairs, scale, degradation=DEGRADATIONS[arguments.degradation or "bicubic"], seed=arguments.seed
    )
    dtype = resolve_precision(arguments.precision, torch.device("cpu"))
    worst = WorstCrops()
    result = evaluate(
        _tiled(generator, dtype),
        tqdm(samples, total=len(pairs), unit="image", file=sys.stderr, disable=None),
        scale,
        lpips=lpips,
        observers=(worst,),
        settings=_settings(arguments, pairs, dtype),
    )
    print(result.to_markdown(), end="")
    if arguments.json is not None:
        arguments.json.write_text(result.to_json(), encoding="utf-8")
    if arguments.markdown is not None:
        arguments.markdown.write_text(result.to_markdown(), encoding="utf-8")
    if arguments.worst is not None:
        save_sheet(arguments.worst, worst.rows)


def _tiled(generator: SRGenerator, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Returns ``generator`` in ``dtype``, run over tiles that give the whole image's result."""
    scale = generator.scale
    generator.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def upscale(lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        sr = torch.empty(1, 3, scale * height, scale * width)
        map_tiles(
            lambda window: generator(window.contiguous(memory_format=torch.channels_last)),
            lr,
            sr,
            tile_size=_TILE_SIZE,
            overlap=generator.receptive_radius,
            scale=scale,
        )
        return sr

    return upscale


def _settings(arguments: argparse.Namespace, pairs: list[Pair], dtype: torch.dtype) -> dict[str, str | int]:
    made = all(pair.lr is None for pair in pairs)
    settings: dict[str, str | int] = {"model": arguments.model}
    if find_model(arguments.model).fidelity is not None:
        settings["fidelity"] = str(DEFAULT_FIDELITY if arguments.fidelity is None else arguments.fidelity)
    settings["data"] = arguments.data.name
    settings["lr"] = (
        f"{arguments.degradation or 'bicubic'}, seed {arguments.seed}" if made else "as published"
    )
    settings["precision"] = str(dtype).removeprefix("torch.")
    settings["torch"] = f"{torch.__version__}, {platform.machine()}"
    return settings
