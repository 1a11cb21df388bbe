"""The folder of a training run: whose it is, and what of it a run that goes on takes over."""

import json
import re
from pathlib import Path
from typing import Literal

from sr_hub.config import TrainConfig
from sr_hub.model_card import PICTURE_FILE
from sr_hub.training_record import METRICS_FILE, SETTINGS_FILE

MODEL_FOLDER = "model"

PHASES: tuple[Literal["pixel", "adversarial"], ...] = ("pixel", "adversarial")
"""Of a run, one after the other."""

# What may differ between a run and its continuation: it does not change the weights that come out.
_FREE = {
    "validation", "validate_every", "checkpoint_every", "log_every", "max_minutes", "memory_limit",
    "tensorboard", "threads", "out", "data", "vgg", "lpips", "license", "data_statement", "push_to_hub",
    "hub_model_id", "hub_private_repo",
}  # fmt: skip


def has_begun(run: Path) -> bool:
    """Whether the run folder holds weights of any step."""
    kept = ("checkpoint.json", *(f"{name}.safetensors" for name in PHASES), MODEL_FOLDER)
    return any((run / name).exists() for name in kept)


def check_settings(run: Path, config: TrainConfig) -> None:
    """Checks that the run whose weights are in the folder ``run``, if one is, has these settings.

    Raises:
        ValueError: If one that changes the weights is another.
    """
    path = run / SETTINGS_FILE
    if not path.exists() or not has_begun(run):
        return
    before, now = TrainConfig.load(path).without_token(), config.without_token()
    changed = [key for key in before if before[key] != now[key] and key not in _FREE]
    if (before["validation"] is None) != (now["validation"] is None):
        changed.append("validation")  # without one, pictures of the data are left out for it
    if changed:
        listed = ", ".join(f"{key} was {before[key]!r}, is {now[key]!r}" for key in changed)
        raise ValueError(
            f"{run} holds a run with other settings ({listed}): use another --out or the same settings"
        )


def sheets(run: Path, phase: str = "*") -> list[Path]:
    """The sheets of a run, or of one phase of it, the oldest first."""
    order: list[str] = list(PHASES)
    found = []
    for path in (run / "sheets").glob(f"{phase}-*.png"):
        if match := re.fullmatch(rf"({'|'.join(PHASES)})-(\d{{6,}})", path.stem):
            found.append((order.index(match[1]), int(match[2]), path))
    return [path for _, _, path in sorted(found)]


def own_pictures(run: Path, tree: Path) -> list[Path]:
    """What of a tree of images is no part of it, but was written there by the run: files or a folder."""
    try:
        inside = tree.resolve() in run.resolve().parents
    except RuntimeError as error:  # Python's of a link that leads to itself
        raise OSError(f"{run} must be a folder, got a link that leads to itself") from error
    if inside:
        return [run]
    # Either none of it, or the run folder is the tree.
    return [run / "curves.png", run / MODEL_FOLDER / PICTURE_FILE, *sheets(run)]


def apart_from_training(run: Path, config: TrainConfig) -> list[Path]:
    """What in ``--data`` is not trained on: the run's own pictures, and the folder that it validates on."""
    top = Path(config.data)
    apart = own_pictures(run, top)
    if config.validation:
        validation = Path(config.validation).resolve()
        if validation not in (top.resolve(), *top.resolve().parents):
            apart.append(validation)
    return apart


def trim_metrics(run: Path, done: dict[str, int]) -> None:
    """Drops the metrics of steps after those ``done`` by phase: they are taken again."""
    path = run / METRICS_FILE
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue  # a line cut short by the kill
        if values["step"] <= done[values["phase"]]:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)
