"""Training checkpoints: safetensors and JSON, each file small, replaced as a whole."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

LARGEST_FILE = 15 * 2**20
"""Bytes of tensors that one file takes at most; a single larger tensor gets a file of its own."""


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Writes tensors and JSON facts as the newest checkpoint of ``folder``.

    The files go to a new folder ``step-N`` first; then one rename of ``checkpoint.json`` makes them current,
    and only then the one before is removed. A process killed at any moment leaves a whole checkpoint.

    Args:
        folder: Where checkpoints live; made if missing.
        tensors: All state by name.
        facts: JSON values; ``facts["name"]`` must differ from that of the checkpoint before.

    Raises:
        OSError: If the disk is full or cannot be written to; the checkpoint before stays.
    """
    name = f"checkpoint-{facts['name']}"
    target = folder / name
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for index, part in enumerate(_parts(tensors)):
            path = target / f"state-{index:03d}.safetensors"
            save_file(part, path)
            _flush(path)
        pointer = folder / "checkpoint.json"
        temporary = folder / "checkpoint.json.tmp"
        temporary.write_text(json.dumps({"folder": name, "tensors": len(tensors), **facts}, indent=2) + "\n")
        _flush(temporary)
        os.replace(temporary, pointer)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(target, ignore_errors=True)  # half a checkpoint, on a disk that may be full
        raise OSError(f"{target}: the checkpoint cannot be written: {error}") from error
    for old in folder.glob("checkpoint-*"):
        if old.name != name:
            shutil.rmtree(old)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What ``save_checkpoint`` wrote last, on the CPU, or None where there is none.

    Raises:
        ValueError: If the files that ``checkpoint.json`` names are missing or broken.
    """
    pointer = folder / "checkpoint.json"
    if not pointer.exists():
        return None
    try:
        facts = json.loads(pointer.read_text())
        tensors: dict[str, Tensor] = {}
        for path in sorted((folder / facts["folder"]).glob("*.safetensors")):
            tensors |= load_file(path)
    except Exception as error:  # whatever a broken file leads to
        raise ValueError(f"{pointer} must name a whole checkpoint, got {error}") from error
    if len(tensors) != facts.get("tensors"):
        raise ValueError(f"{pointer} names {facts.get('tensors')} tensors, got {len(tensors)}")
    return tensors, facts


def _parts(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous().clone()
        if parts[-1] and size + tensor.nbytes > LARGEST_FILE:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flatten_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimizer's state tensors by names like ``prefix.3.exp_avg``."""
    return {
        f"{prefix}.{index}.{key}": value
        for index, state in optimizer.state_dict()["state"].items()
        for key, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Puts back what ``flatten_optimizer`` gave; ``optimizer`` must have the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith(prefix + "."):
            index, key = name.removeprefix(prefix + ".").split(".")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
