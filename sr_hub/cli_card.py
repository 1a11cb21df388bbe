"""``sr-hub card``: the model card of a folder, from the facts that lie in it."""

import argparse
import contextlib
import dataclasses
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from sr_hub.config import TrainConfig
from sr_hub.data import Crops, list_images, smallest_side
from sr_hub.folders import shown
from sr_hub.generator import SRGenerator
from sr_hub.inference import choose_dtype, upscale
from sr_hub.licenses import check_license
from sr_hub.measuring import check_scores
from sr_hub.model_card import RESULTS_FOLDER, CardOptions, Speed, told_legs, write_card
from sr_hub.run_folder import apart_from_training
from sr_hub.training_record import (
    RECORD_FILE,
    SETTINGS_FILE,
    Data,
    Leg,
    describe_run,
    read_record,
    this_machine,
    told_anew,
    write_record,
)

SPEED_FILE = "speed.json"
_SIDE = 512  # LR pixels of the picture that is timed
_TIMES = 5


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``card`` to the command line; its ``run`` takes the parsed arguments."""
    parser = subparsers.add_parser(
        "card",
        help="write the model card from the facts in a model's folder",
        description="Writes README.md into a model's folder, from config.json, the weights, "
        f"{RECORD_FILE} (of training), {RESULTS_FOLDER}/*.json (of sr-hub evaluate --json) "
        "and pictures before_after*.",
    )
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument("--name", help="title of the card (default: the folder's name)")
    parser.add_argument("--license", help="licence of the weights (default: what training was told)")
    parser.add_argument(
        "--data-statement",
        metavar="TEXT",
        help="origin and licences of the training images of the newest run, and of those told none "
        "(default: as above)",
    )
    parser.add_argument(
        "--dataset", action="append", default=[], metavar="USER/NAME", help="training data set on the Hub"
    )
    parser.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help=f"write {RECORD_FILE} anew from this training run's folder; repeat it, oldest first, where one "
        "run started from the other's weights. This machine and the images now in its --data are put down",
    )
    parser.add_argument(
        "--time", action="store_true", help=f"measure this machine's speed into {RESULTS_FOLDER}/{SPEED_FILE}"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Writes the record and the times asked for, then the card.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: With one sentence to show.
    """
    folder: Path = arguments.folder
    if not folder.is_dir():
        raise FileNotFoundError(f"no model folder at {folder}")
    if arguments.license is not None:
        check_license(arguments.license)
    check_scores(folder)
    record = folder / RECORD_FILE
    legs = [_leg_of(path) for path in arguments.runs]
    if not legs and record.is_file():
        legs = read_record(record)
    if legs:
        legs[-1] = told_anew(legs[-1], arguments.license, arguments.data_statement)
        told = CardOptions(license=arguments.license, data_statement=arguments.data_statement)
        write_record(record, told_legs(legs, told))
    if arguments.time:
        _write_times(folder)
    options = CardOptions(
        name=arguments.name,
        license=arguments.license,
        data_statement=arguments.data_statement,
        datasets=tuple(arguments.dataset),
    )
    print(f"card written to {shown(write_card(folder, options))}")


def _leg_of(run_folder: Path) -> Leg:
    config = TrainConfig.load(run_folder / SETTINGS_FILE)
    data = Data()
    if Path(config.data).is_dir():
        paths = list_images(Path(config.data), apart_from_training(run_folder, config))
        smallest = smallest_side(config.largest_patch, config.scale, config.shrink)
        with contextlib.suppress(ValueError):  # of those pictures none is left: not counted
            sizes = Crops(paths, smallest, 0, torch.device("cpu")).sizes
            data = Data(None, len(sizes), round(sum(height * width for height, width in sizes) / 1e6, 1))
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    machine = this_machine(device)
    if config.threads:
        machine = dataclasses.replace(machine, threads=config.threads)
    return describe_run(run_folder, data=data, machine=machine)


def _write_times(folder: Path) -> None:
    """Times ``upscale`` on this machine; an entry of the same machine and precision is replaced."""
    path = folder / RESULTS_FOLDER / SPEED_FILE
    entries = {}
    if path.is_file():
        old = json.loads(path.read_text(encoding="utf-8"))["seconds_per_output_megapixel"]
        entries = {(entry["machine"], entry["precision"]): entry for entry in old}
    generator = SRGenerator.from_pretrained(folder)
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        speed = _speed(generator.to(device), torch.device(device))
        entries[speed.machine, speed.precision] = dataclasses.asdict(speed)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"seconds_per_output_megapixel": list(entries.values())}, indent=2) + "\n")


def _speed(generator: SRGenerator, device: torch.device) -> Speed:
    picture = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    seconds = []
    for _ in range(_TIMES + 1):
        started = time.perf_counter()
        upscale(generator, picture)  # returns an array on the CPU, so the GPU has finished
        seconds.append(time.perf_counter() - started)
    machine = this_machine(device)
    name = (
        machine.name
        if device.type == "cuda"
        else f"{machine.name}, {machine.threads} thread{'s' if machine.threads > 1 else ''}"
    )
    precision = str(choose_dtype(device, "auto")).removeprefix("torch.")
    megapixels = (generator.scale * _SIDE) ** 2 / 1e6
    return Speed(name, precision, round(statistics.median(seconds[1:]) / megapixels, 4))
