"""How a model came about: one leg for each training run, in ``training_record.json`` beside its weights."""

import dataclasses
import hashlib
import json
import math
import os
import platform
import shlex
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sr_hub.config import TrainConfig
from sr_hub.hub_files import HubOptions
from sr_hub.pretrained import BUNDLED, DEFAULT_FIDELITY, ModelFiles, find_beside, find_model

RECORD_FILE = "training_record.json"
# Of a run folder:
SETTINGS_FILE = "train_config.json"
METRICS_FILE = "metrics.jsonl"

_PATHS = ("data", "out", "validation", "init", "vgg", "lpips")
_NOT_OF_THE_RUN = {"license", "data_statement", "push_to_hub", "hub_model_id", "hub_private_repo"}
_PACKAGES = ("torch", "numpy", "pillow")
_SCORES = ("psnr_y", "psnr_y_bicubic")


@dataclass(frozen=True)
class Machine:
    """What trained: the processor's name, ``cpu`` or ``cuda``, and how many threads and processes of it."""

    name: str
    device: str
    threads: int
    processes: int = 1


@dataclass(frozen=True)
class Data:
    """The training images; None where it was not counted or said."""

    statement: str | None = None
    images: int | None = None
    megapixels: float | None = None


@dataclass(frozen=True)
class Validation:
    """Mean PSNR-Y in dB of the run's last validation, beside bicubic's.

    Infinite where an image was hit exactly, such as a flat one; JSON has null for that.
    """

    images: str
    psnr_y: float
    psnr_y_bicubic: float


@dataclass(frozen=True)
class Start:
    """The weights a run started from; ``hub`` where ``model`` is a repository there.

    ``sha256`` is that of its weights file, None where that was gone when the record was written.
    """

    model: str
    hub: bool
    fidelity: float | None
    sha256: str | None


@dataclass(frozen=True)
class Leg:
    """One training run. ``steps`` are those done, by phase; None stands for what was not recorded.

    ``afterwards`` is what was made of its weights by hand, such as a mean with others, if anything was.
    """

    command: str
    settings: dict[str, Any]
    seed: int
    steps: dict[str, int]
    hours: float | None
    machine: Machine | None
    versions: dict[str, str]
    data: Data
    license: str | None
    validation: Validation | None
    start: Start | None
    afterwards: str | None = None


def told_anew(leg: Leg, license: str | None, statement: str | None) -> Leg:
    """``leg`` with the licence and the statement on its data that were told later, where they were."""
    data = dataclasses.replace(leg.data, statement=statement or leg.data.statement)
    return dataclasses.replace(leg, license=license or leg.license, data=data)


def this_machine(device: torch.device, processes: int = 1) -> Machine:
    """The machine of this process."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return Machine(name, device.type, torch.get_num_threads(), processes)


def describe_run(
    folder: Path,
    *,
    data: Data | None = None,
    machine: Machine | None = None,
    start: Start | None = None,
) -> Leg:
    """The leg that a run folder with ``train_config.json`` and ``metrics.jsonl`` stands for.

    Args:
        folder: ``--out`` of a training run.
        data: Count of the images; the statement in it gives way to that of the settings.
        machine: Where it ran.
        start: What it started from. Default: what ``--init`` names now.

    Raises:
        FileNotFoundError: If the folder lacks one of the two files.
        ValueError: If one of them is broken.
    """
    for file in (SETTINGS_FILE, METRICS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} must be a run folder with {file}, which is not there")
    config = TrainConfig.load(folder / SETTINGS_FILE)
    text = (folder / METRICS_FILE).read_text()
    whole = text[: text.rfind("\n") + 1]  # a kill may have cut the last line short
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'metrics.jsonl'} must hold JSON lines, got: {error}") from error
    steps: dict[str, int] = {}
    for line in lines:
        steps[line["phase"]] = max(steps.get(line["phase"], 0), line["step"])
    scores = [line for line in lines if "psnr_y" in line]
    images = "images of the training folder"
    if config.validation:
        # Of a link its own name, which tells more than that of the folder it leads to.
        images = Path(os.path.abspath(config.validation)).name
    data = data or Data()
    settings = {name: _portable(name, value) for name, value in config.without_token().items()}
    return Leg(
        command=_command(settings),
        settings={name: value for name, value in settings.items() if name not in _NOT_OF_THE_RUN},
        seed=config.seed,
        steps=steps,
        hours=round(lines[-1]["seconds"] / 3600, 3) if lines else None,
        machine=machine,
        versions=_versions(),
        data=dataclasses.replace(data, statement=config.data_statement or data.statement),
        license=config.license,
        validation=_validation({"images": images, **{name: _rounded(scores[-1][name]) for name in _SCORES}})
        if scores
        else None,
        start=start or start_of(config),
    )


def start_of(config: TrainConfig, files: ModelFiles | None = None) -> Start | None:
    """What ``--init`` names, as it is now or as it lies in ``files``; None for new weights."""
    if config.init is None:
        return None
    name = str(_portable("init", config.init))
    try:
        files = files or find_model(config.init, HubOptions(token=config.hub_token))
    except FileNotFoundError:  # of a run of old, told of now
        return Start(name, False, config.init_fidelity, None)
    local = Path(config.init).exists() or files.weights.is_relative_to(BUNDLED)
    fidelity = config.init_fidelity
    if fidelity is None and files.fidelity is not None:
        fidelity = DEFAULT_FIDELITY
    return Start(name, not local, fidelity, sha256_of(files.weights))


def sums_of(files: ModelFiles) -> list[str]:
    """SHA-256 of each of a model's weights files."""
    return [sha256_of(path) for path in (files.weights, files.fidelity) if path is not None]


def legs_before(config: TrainConfig) -> list[Leg]:
    """The legs of the model that ``--init`` names; none for new weights or a model without a record."""
    if config.init is None:
        return []
    record = find_beside(config.init, RECORD_FILE, HubOptions(token=config.hub_token))
    return [] if record is None else read_record(record)


def write_record(path: Path, legs: list[Leg]) -> None:
    """Writes `record_of` the legs by a temporary file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(record_of(legs))
    temporary.replace(path)


def record_of(legs: list[Leg]) -> bytes:
    """``{"legs": [...]}`` as JSON, oldest leg first; an infinite PSNR is null."""
    content: dict[str, list[dict[str, Any]]] = {"legs": [dataclasses.asdict(leg) for leg in legs]}
    for values in content["legs"]:
        scores = values["validation"] or {}
        scores.update({name: None for name in _SCORES if scores.get(name) == math.inf})
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def read_record(path: Path) -> list[Leg]:
    """The legs that ``write_record`` wrote.

    Raises:
        ValueError: If the file is not such a record; the message says where.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also of numbers too long and of brackets too deep
        raise ValueError(f"{path} must be JSON, got: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("legs"), list):
        raise ValueError(f"{path} must hold an object with a list legs, got {type(content).__name__}")
    try:
        legs = [_leg(values) for values in content["legs"]]
        record_of(legs)  # what could not be written again would fail after a training
        return legs
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: a leg must have the fields of a training run, got: {error}") from error


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _leg(values: dict[str, Any]) -> Leg:
    parts: dict[str, Callable[..., Any]] = {
        "machine": Machine, "data": Data, "validation": lambda **scores: _validation(scores), "start": Start
    }  # fmt: skip
    built = {name: None if values.get(name) is None else kind(**values[name]) for name, kind in parts.items()}
    leg = Leg(**{**values, **built})
    for part in (leg, leg.machine, leg.data, leg.validation, leg.start):
        if part is not None:
            _check_types(part)
    if not isinstance(leg.settings.get("degradation", ""), str):
        raise ValueError(f"degradation must be str, got {leg.settings['degradation']!r}")
    return leg


def _check_types(part: Any) -> None:
    """Refuses a part of a leg that JSON has given a value of another type: a card shows them as they are."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if not _is_of(value, field.type):
            kind = field.type.__name__ if type(field.type) is type else field.type
            raise ValueError(f"{field.name} must be {kind}, got {value!r}")


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_is_of(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is dict:
        of_key, of_value = typing.get_args(kind)
        return isinstance(value, dict) and all(
            _is_of(key, of_key) and _is_of(part, of_value) for key, part in value.items()
        )
    if kind is str:  # JSON can hold halves of characters, which no file can
        return isinstance(value, str) and value == value.encode("utf-8", "ignore").decode()
    if kind is float:
        return type(value) in (int, float)
    return kind is Any or type(value) is kind


def _validation(values: dict[str, Any]) -> Validation:
    """Of JSON, where null stands for an infinite PSNR."""
    infinite = {name: math.inf for name in _SCORES if name in values and values[name] is None}
    return Validation(**{**values, **infinite})


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def _portable(name: str, value: Any) -> Any:
    """A path of this machine without the folders that lead to it: they are nobody else's affair."""
    if name not in _PATHS or value is None:
        return value
    path = Path(value)
    if not (path.is_absolute() or ".." in path.parts or value.startswith("~")):
        return value
    if name == "init" and path.name == "model":  # a run folder's model/: the run has the telling name
        return f"{path.parent.name}/model"
    return path.name


def _command(settings: dict[str, Any]) -> str:
    words = ["python", "train.py"]
    for field in dataclasses.fields(TrainConfig):
        if field.name in _NOT_OF_THE_RUN or field.name not in settings:
            continue
        value, flag = settings[field.name], field.name.replace("_", "-")
        if value == field.default and field.name != "seed":
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


def _versions() -> dict[str, str]:
    # Of the running code, which need not be an installed package; an import would go down the layers.
    versions = {"sr_hub": sys.modules["sr_hub"].__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        versions[package] = version(package)
    return versions


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
