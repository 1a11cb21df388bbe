"""Scores of a model, given by its name, on a folder of pictures."""

import contextlib
import datetime
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sr_hub.claims import PUBLISHED
from sr_hub.degradations import DEGRADATIONS
from sr_hub.ensemble import DihedralEnsemble
from sr_hub.evaluation import Evaluation, Observer, Pair, evaluate, find_pairs, load_samples
from sr_hub.generator import DEFAULT_FIDELITY, SRGenerator
from sr_hub.hub_files import HubOptions
from sr_hub.metrics import LPIPS
from sr_hub.model_card import RESULTS_FOLDER
from sr_hub.precision import resolve_precision
from sr_hub.pretrained import FIDELITY_FILE, find_model
from sr_hub.provenance import hash_weights, program_name
from sr_hub.tiling import map_tiles

_TILE_SIZE = 512  # LR pixels; bounds the memory of large pictures


def measure(
    model: str,
    folder: Path,
    *,
    fidelity: float | None = None,
    degradation: str | None = None,
    seed: int = 0,
    precision: str = "fp32",
    ensemble: bool = False,
    lpips: LPIPS | None = None,
    hub: HubOptions | None = None,
    observers: Sequence[Observer] = (),
) -> Evaluation:
    """Scores ``model`` and bicubic on the pictures of ``folder``, with a progress bar on stderr.

    Args:
        model: Bundled name, model folder or Hub repository.
        folder: As for `sr_hub.evaluation.find_pairs`.
        fidelity: Blend of a model with two ends.
        degradation: Makes LR images of the HR ones; None uses the folder's LR images, and bicubic where
            there are none.
        seed: Of the degradation.
        precision: Of the network.
        ensemble: Scores the mean over the eight flips and turns of each picture.
        lpips: Measures LPIPS, too.
        hub: How to get a repository.
        observers: As for `sr_hub.evaluation.evaluate`.

    Raises:
        OSError, ValueError: If model, folder or a picture is missing or bad.
    """
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    generator = SRGenerator.from_pretrained(model, fidelity=fidelity, **vars(hub or HubOptions()))
    pairs = find_pairs(folder, generator.scale, use_lr=degradation is None)
    made_by = degradation or "bicubic"
    if made_by not in DEGRADATIONS:
        raise ValueError(f"degradation must be one of {', '.join(sorted(DEGRADATIONS))}, got {made_by!r}")
    samples = load_samples(pairs, generator.scale, degradation=DEGRADATIONS[made_by], seed=seed)
    dtype = resolve_precision(precision, torch.device("cpu"))
    settings: dict[str, str | int] = {"model": model}
    if find_model(model, hub).fidelity is not None:
        settings["fidelity"] = str(DEFAULT_FIDELITY if fidelity is None else fidelity)
    if ensemble:
        settings["ensemble"] = "flips and turns"
    settings |= {
        "data": folder.resolve().name,
        "lr": f"{made_by}, seed {seed}" if _made(pairs) else PUBLISHED,
        "precision": str(dtype).removeprefix("torch."),
        "weights": hash_weights(generator),
        "program": program_name(),
        "torch": f"{torch.__version__}, {platform.machine()}",
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }
    return evaluate(
        _tiled(DihedralEnsemble(generator) if ensemble else generator, dtype),
        tqdm(samples, total=len(pairs), unit="image", file=sys.stderr, disable=None),
        generator.scale,
        lpips=lpips,
        observers=observers,
        settings=settings,
    )


def check_scores(folder: Path) -> None:
    """Checks that the scores in a model's folder were measured on the weights that lie there.

    Those of its ends, that is: the last bits of a blend, and so its hash, may depend on the machine. What is
    no file of scores is left to the card, which tells what is wrong with it.

    Args:
        folder: Of the model, with config and weights.

    Raises:
        OSError: If config or weights are missing.
        ValueError: If scores are of other weights, or the weights are broken; names the file.
    """
    two_ends = (folder / FIDELITY_FILE).is_file()
    ends: dict[float | None, str] = {}
    for path in sorted((folder / RESULTS_FOLDER).glob("*.json")):
        measured, fidelity = _measured_on(path)
        if measured is None or fidelity not in (None, 0, 1):
            continue
        if fidelity not in ends and (fidelity is not None) == two_ends:
            ends[fidelity] = hash_weights(SRGenerator.from_pretrained(folder, fidelity=fidelity))
        if measured != ends.get(fidelity):
            raise ValueError(
                f"{path} must hold scores of the weights in {folder}, got those of others (SHA-256 "
                f"{measured}): measure again with sr-hub evaluate, or delete it"
            )


def _measured_on(path: Path) -> tuple[str | None, float | None]:
    """Hash and fidelity that a file of scores names; no hash where it is no such file."""
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        fidelity = settings.get("fidelity")
        return settings["weights"], None if fidelity is None else float(fidelity)
    return None, None


def _made(pairs: list[Pair]) -> bool:
    return all(pair.lr is None for pair in pairs)


def _tiled(generator: SRGenerator | DihedralEnsemble, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
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
