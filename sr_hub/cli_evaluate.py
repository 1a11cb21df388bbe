"""``sr-hub evaluate``: scores of a model on a folder of pictures, beside bicubic's."""

import argparse
from pathlib import Path

from sr_hub.degradations import DEGRADATIONS
from sr_hub.folders import shown
from sr_hub.measuring import measure
from sr_hub.metrics import LPIPS
from sr_hub.precision import PRECISIONS
from sr_hub.sheet import WorstCrops, save_sheet
from sr_hub.whole_files import check_place, whole_file


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
    parser.add_argument(
        "--ensemble", action="store_true", help="score the mean over flips and turns, 8 times slower"
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
        if path is not None:
            check_place(path)
    if arguments.worst is not None and arguments.worst.suffix.lower() != ".png":
        raise ValueError(f"the picture of the worst crops must end in .png, got {arguments.worst}")
    lpips = None if arguments.lpips is None else LPIPS.from_file(arguments.lpips)
    worst = WorstCrops()
    result = measure(
        arguments.model,
        arguments.data,
        fidelity=arguments.fidelity,
        degradation=arguments.degradation,
        seed=arguments.seed,
        precision=arguments.precision,
        ensemble=arguments.ensemble,
        lpips=lpips,
        observers=(worst,),
    )
    for path, text in ((arguments.json, result.to_json()), (arguments.markdown, result.to_markdown())):
        if path is not None:
            with whole_file(path) as file:
                file.write(text.encode("utf-8", "backslashreplace"))  # names of files may be no UTF-8
    if arguments.worst is not None:
        save_sheet(arguments.worst, worst.rows)
    print("\n".join(map(shown, result.to_markdown().splitlines())))
