"""Finds and checks a model's files: bundled in the package, in a folder or on the Hub."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FIDELITY_FILE = "fidelity.safetensors"
"""Beside the weights of a GAN model: those of the pixel-loss model it was fine-tuned from."""

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT_MODEL = "clean"

DEFAULT_FIDELITY = 0.5
"""Blend of a family's two ends when none is asked for."""


@dataclass(frozen=True)
class ModelFiles:
    """Paths of a model; ``fidelity`` is None where the model has one end only."""

    name: str
    config: Path
    weights: Path
    fidelity: Path | None


def bundled_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in BUNDLED.glob(f"*/{CONFIG_FILE}"))


def find_model(name: str, **hub: Any) -> ModelFiles:
    """The files of a bundled model, of a local folder or of a Hub repository ``user/name``.

    Args:
        name: Looked up in this order: a bundled name, an existing folder, a repository.
        hub: Passed to ``hf_hub_download``: revision, token, cache_dir, local_files_only, ...

    Raises:
        FileNotFoundError: If there is no such model, or it lacks config.json or safetensors weights.
        ConnectionError: If the Hub cannot be reached and the cache does not hold the model.
    """
    folder = BUNDLED / name if name in bundled_models() else Path(name)
    if folder.is_dir():
        return _in_folder(str(name), folder)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"model must be one of {', '.join(bundled_models()) or 'the bundled names'}, an existing folder "
            f"or a Hub repository user/name, got {name!r}"
        )
    return _on_hub(name, hub)


def find_beside(name: str, file: str, **hub: Any) -> Path | None:
    """A further file of the model ``name``, such as its card; None where the model has no such file.

    Args:
        name: As for ``find_model``.
        file: Name of the file.
        hub: As for ``find_model``.

    Raises:
        FileNotFoundError: If there is no such model.
        ConnectionError: If the Hub cannot be reached and the cache does not hold the file.
    """
    folder = BUNDLED / name if name in bundled_models() else Path(name)
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    find_model(name, **hub)
    try:
        return Path(hf_hub_download(name, file, library_name="sr_hub", **hub))
    except EntryNotFoundError:
        return None


def _in_folder(name: str, folder: Path) -> ModelFiles:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(_lacks(str(folder), file, [path.name for path in folder.iterdir()]))
    fidelity = folder / FIDELITY_FILE
    return ModelFiles(
        name, folder / CONFIG_FILE, folder / WEIGHTS_FILE, fidelity if fidelity.is_file() else None
    )


def _lacks(where: str, file: str, others: list[str]) -> str:
    pickles = [other for other in others if other.endswith((".bin", ".pth", ".pt", ".ckpt"))]
    if file == WEIGHTS_FILE and pickles:
        return (
            f"{where} has pickle weights only ({pickles[0]}); loading pickle can run code, so it is refused"
        )
    return f"{where} must hold {file}, which is not there"


def _on_hub(repo_id: str, hub: dict[str, Any]) -> ModelFiles:
    def fetch(file: str) -> Path:
        return Path(hf_hub_download(repo_id, file, library_name="sr_hub", **hub))

    file = CONFIG_FILE
    try:
        config = fetch(CONFIG_FILE)
        file = WEIGHTS_FILE
        weights = fetch(WEIGHTS_FILE)
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"no repository {repo_id} on the Hub, or it is private and the token does not open it"
        ) from error
    except RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repo_id} has no revision {hub.get('revision')!r}") from error
    except LocalEntryNotFoundError as error:
        raise ConnectionError(
            f"{repo_id}: {file} is not in the cache and the Hub cannot be reached"
        ) from error
    except EntryNotFoundError as error:
        raise FileNotFoundError(_lacks(repo_id, file, [])) from error
    except HFValidationError as error:
        raise FileNotFoundError(f"model must be a Hub repository user/name, got {repo_id!r}") from error
    except HfHubHTTPError as error:
        raise ConnectionError(f"the Hub did not give {file} of {repo_id}: {error}") from error
    try:
        fidelity = fetch(FIDELITY_FILE)
    except EntryNotFoundError:
        fidelity = None  # LocalEntryNotFoundError too: offline, a file never cached is not there
    return ModelFiles(repo_id, config, weights, fidelity)


def read_config(path: Path, limits: Mapping[str, tuple[int, int]]) -> dict[str, int]:
    """The whole-number settings of ``config.json``.

    Args:
        path: The file.
        limits: Smallest and largest value by name; exactly these names must be there.

    Raises:
        ValueError: If it is not a JSON object of these names, or a value is no whole number in its limits.
    """
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be JSON, got: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(config).__name__}")
    missing, unknown = sorted(set(limits) - set(config)), sorted(set(config) - set(limits))
    if missing or unknown:
        raise ValueError(
            f"{path} must have exactly the fields {', '.join(limits)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    for name, (least, most) in limits.items():
        value = config[name]
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{path}: {name} must be a whole number from {least} to {most}, got {value!r}")
    return config


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a safetensors file, as float32, with exactly the names and shapes of ``expected``.

    Raises:
        ValueError: If the file is broken, or names or shapes differ; the message names the first of them.
    """
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file, got: {error}") from error
    missing, unknown = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{path} does not fit its config.json: {len(missing)} weights missing "
            f"({', '.join(missing[:3])}), {len(unknown)} unknown ({', '.join(unknown[:3])})"
        )
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{path}: {name} must have shape {tuple(expected[name].shape)}, got {tuple(value.shape)}"
            )
    return {name: value.float() for name, value in tensors.items()}
