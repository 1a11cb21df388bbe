"""Finds and checks a model's files: bundled in the package, in a folder, a single file or on the Hub."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sr_hub.hub_files import HubOptions, commit_of, fetch, list_files

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FIDELITY_FILE = "fidelity.safetensors"
"""Beside the weights of a GAN model: those of the pixel-loss model it was fine-tuned from."""

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_MODEL = "photo"

DEFAULT_FIDELITY = 0.25
"""Blend of a family's two ends when none is asked for."""


@dataclass(frozen=True)
class ModelFiles:
    """Paths of a model; ``config`` is None for a lone weights file, ``fidelity`` where there is one end.

    ``revision`` is the commit of a repository, None for files that come from none.
    """

    name: str
    config: Path | None
    weights: Path
    fidelity: Path | None
    revision: str | None = None


def reach(blocks: int) -> int:
    """How far, in LR pixels, an input pixel of a generator reaches.

    One for each 3x3 convolution in the longest row: head, tail, and of a block the gate's three and one more.
    """
    return 4 * blocks + 2


def bundled_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG_FILE}"))


def find_model(name: str, hub: HubOptions | None = None) -> ModelFiles:
    """The files of a bundled model, of a local folder or file or of a Hub repository ``user/name``.

    Args:
        name: Looked up in this order: a bundled name, an existing folder or ``.safetensors`` file, a
            repository.
        hub: How to get the files of a repository.

    Raises:
        FileNotFoundError: If there is no such model, or it lacks config.json or safetensors weights.
        PermissionError: If the Hub does not give it to this user.
        ConnectionError: If the Hub cannot be reached and the cache does not hold the model.
        OSError: If there is no room for it.
        ValueError: If what came is not what the Hub says it is, or a revision is asked of a model that is no
            repository.
    """
    path = _local(name)
    if path is None:
        return _on_hub(name, hub or HubOptions())
    if hub is not None and hub.revision is not None:
        raise ValueError(f"revision {hub.revision} needs a repository on the Hub, got {name} on this machine")
    if path.is_dir():
        return _in_folder(name, path)
    return ModelFiles(name, None, path, None)


def find_beside(name: str, file: str, hub: HubOptions | None = None) -> Path | None:
    """A further file of the model ``name``, such as its card; None where the model has no such file.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, OSError, ValueError: As `find_model`.
    """
    path = _local(name)
    if path is None:
        return fetch(name, file, hub or HubOptions())
    return path / file if (path / file).is_file() else None


def _local(name: str) -> Path | None:
    """The folder or file that ``name`` means on this machine; None where it means a repository."""
    if name in bundled_models():
        return BUNDLED / name
    path = Path(name)
    if path.is_dir() or (path.suffix == ".safetensors" and path.is_file()):
        return path
    if path.is_file():
        raise FileNotFoundError(f"model must be a folder or a .safetensors file, got {name!r}")
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or path.suffix == ".safetensors":
        raise FileNotFoundError(
            f"model must be one of {', '.join(bundled_models()) or 'the bundled names'}, an existing folder "
            f"or a Hub repository user/name, got {name!r}"
        )
    return None


def _in_folder(name: str, folder: Path) -> ModelFiles:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(_lacks(str(folder), file, [path.name for path in folder.iterdir()]))
    fidelity = folder / FIDELITY_FILE
    files = ModelFiles(
        name, folder / CONFIG_FILE, folder / WEIGHTS_FILE, fidelity if fidelity.is_file() else None
    )
    return _with_both_ends(files)


def _on_hub(repo_id: str, hub: HubOptions) -> ModelFiles:
    config = fetch(repo_id, CONFIG_FILE, hub)
    if config is not None:
        # The other files of the same commit, even if someone pushes meanwhile.
        hub = hub.at_commit_of(config)
    weights = fetch(repo_id, WEIGHTS_FILE, hub)
    if config is None or weights is None:
        missing = CONFIG_FILE if config is None else WEIGHTS_FILE
        raise FileNotFoundError(_lacks(repo_id, missing, list_files(repo_id, hub)))
    try:
        fidelity = fetch(repo_id, FIDELITY_FILE, hub)
    except ConnectionError:
        # A cache that does not say whether the repository has this file: the header of the weights does.
        if _header(weights).get("ends") != "1":
            raise
        fidelity = None
    return _with_both_ends(ModelFiles(repo_id, config, weights, fidelity, commit_of(config)))


def _with_both_ends(files: ModelFiles) -> ModelFiles:
    """``files``, if they hold the second end where the header of the first tells of one."""
    if files.fidelity is None and _header(files.weights).get("ends") == "2":
        raise FileNotFoundError(
            f"{files.name} must hold {FIDELITY_FILE}, the other end of its family, which is not there"
        )
    return files


def _lacks(where: str, file: str, others: list[str]) -> str:
    pickles = [other for other in others if other.endswith((".bin", ".pth", ".pt", ".ckpt", ".pkl"))]
    if WEIGHTS_FILE not in others and pickles:
        return (
            f"{where} has pickle weights only ({pickles[0]}); loading pickle can run code, so it is refused"
        )
    return f"{where} must hold {file}, which is not there"


def read_config(files: ModelFiles, limits: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """The whole-number settings of ``config.json``, or of the header of a lone weights file.

    Args:
        files: The model.
        limits: Smallest and largest value by name; exactly these names must be there.

    Raises:
        ValueError: If it is not a JSON object of these names, or a value is no whole number in its limits.
    """
    if files.config is not None:
        place, text = str(files.config), files.config.read_bytes()
    else:
        header = _header(files.weights)
        if "config" not in header:
            raise ValueError(
                f"{files.weights} must carry its config in its header, as save_pretrained writes it, or lie "
                f"in a folder with {CONFIG_FILE} that is named instead"
            )
        place, text = f"the header of {files.weights}", header["config"].encode()
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers too long and of brackets too deep
        raise ValueError(f"{place} must be JSON, got: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{place} must hold a JSON object, got {type(config).__name__}")
    missing, unknown = sorted(set(limits) - set(config)), sorted(set(config) - set(limits))
    if missing or unknown:
        raise ValueError(
            f"{place} must have exactly the fields {', '.join(limits)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    for name, (least, most) in limits.items():
        value = config[name]
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{place}: {name} must be a whole number from {least} to {most}, got {value!r}")
    return config


def read_weights(
    path: Path, expected: Mapping[str, Tensor], dtype: torch.dtype | None = torch.float32
) -> dict[str, Tensor]:
    """Tensors of a safetensors file, with exactly the names and shapes of ``expected``.

    Args:
        path: The file.
        expected: Tensors of the shapes that must be there.
        dtype: What to convert to; None keeps the file's.

    Raises:
        ValueError: If the file is broken, names or shapes differ, or a value is not finite, before or after
            the conversion; the message names the first of them.
    """
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        _check_shapes(path, shapes, expected)  # before the values take memory
        with torch.device("cpu"):  # whatever torch's default is: older safetensors follow it
            tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got: {error}") from error
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise ValueError(f"{path}: {name} must be of floating point, got {value.dtype}")
        if value.dtype.itemsize < 2:
            raise ValueError(
                f"{path}: {name} must be of floating point of 16 bits or more, got {value.dtype}"
            )
        if not value.isfinite().all():
            raise ValueError(f"{path}: {name} must be finite, got NaN or infinity")
    kinds = {value.dtype for value in tensors.values()}
    if dtype is None:
        if len(kinds) > 1:
            found = ", ".join(sorted(map(str, kinds)))
            raise ValueError(f"{path} must be of one dtype to keep it, got {found}")
        return tensors
    converted = {name: value.to(dtype) for name, value in tensors.items()}
    for name, value in converted.items():
        if value.dtype != tensors[name].dtype and not value.isfinite().all():
            largest = max(tensors[name].flatten().tolist(), key=abs)
            raise ValueError(f"{path}: {name} must be finite in {dtype}, got {largest:g}")
    return converted


def _check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(set(expected) - set(shapes)), sorted(set(shapes) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{path} does not fit its config.json: {len(missing)} weights missing "
            f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
        )
    for name, shape in shapes.items():
        if shape != expected[name].shape:
            raise ValueError(f"{path}: {name} must have shape {tuple(expected[name].shape)}, got {shape}")


def _header(path: Path) -> dict[str, Any]:
    """The text values in a safetensors file's header."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got: {error}") from error
