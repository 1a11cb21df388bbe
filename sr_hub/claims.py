"""Scores that a card claims: in files of ``sr-hub evaluate --json`` and in a card's metadata."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from yaml import YAMLError

METRICS = {"psnr": "PSNR-Y", "ssim": "SSIM-Y", "lpips": "LPIPS"}
"""Names of the Hub and of people."""

TOLERANCES = {"psnr": 0.02, "ssim": 0.001, "lpips": 0.002}
"""How far a score measured again may lie from the card's: machines round differently."""

FIELDS = {"psnr": "psnr_y", "ssim": "ssim_y", "lpips": "lpips"}
"""Names of these in `sr_hub.evaluation`."""

DEGRADATIONS_IN_WORDS = {
    "bicubic": "bicubic: MATLAB's, antialiased",
    "photo": "photo: random blur, resizing, noise and JPEG compression",
    "rough": "rough: as photo, more of it in a third of the images",
}
PUBLISHED = "as published"
"""How the LR images were made where a set has its own; else ``<degradation>, seed <number>``."""

_LR = re.compile(rf"{PUBLISHED}|({'|'.join(DEGRADATIONS_IN_WORDS)}), seed \d{{1,12}}")


@dataclass(frozen=True)
class Claim:
    """The scores of one evaluation: means by metric (``psnr``, ``ssim``, ``lpips``), None if not measured."""

    dataset: str
    images: int
    lr: str
    fidelity: float | None
    precision: str
    sr: dict[str, float | None]
    bicubic: dict[str, float | None]

    @property
    def degradation(self) -> tuple[str | None, int]:
        """What made the LR images and its seed, as `lr` tells; None and 0 where they are those published."""
        if self.lr == PUBLISHED:
            return None, 0
        name, _, seed = self.lr.partition(", seed ")
        return name, int(seed)


def read_evaluation(path: Path) -> Claim:
    """The means of a file that ``sr-hub evaluate --json`` wrote.

    Raises:
        ValueError: If it is no such file.
    """
    content = read_json(path)
    if "mean" not in content:
        raise ValueError(f"{path} must hold scores of sr-hub evaluate --json, got {', '.join(content)}")
    return claim_in(content, path)


def claim_in(content: dict[str, Any], path: Path) -> Claim:
    """The claim that the content of ``path`` amounts to.

    Raises:
        ValueError: If it is not what ``sr-hub evaluate --json`` wrote, or with ``--ensemble``.
    """
    try:
        means = content["mean"]
        sr, bicubic = (SimpleNamespace(**means[which]) for which in ("sr", "bicubic"))
        claim = claim_of(content["settings"], len(content["images"]), sr, bicubic)
        is_ensemble = "ensemble" in content["settings"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} must hold scores of sr-hub evaluate --json, lacks {error}") from error
    if is_ensemble:
        raise ValueError(f"{path} must hold scores of the model itself, got those of --ensemble")
    return claim


def claim_of(settings: Mapping[str, str | int], images: int, sr: object, bicubic: object) -> Claim:
    """The claim that means of an evaluation, with fields ``psnr_y``, ``ssim_y`` and ``lpips``, amount to."""
    fidelity = settings.get("fidelity")
    return Claim(
        dataset=str(settings["data"]),
        images=images,
        lr=str(settings["lr"]),
        fidelity=None if fidelity is None else float(fidelity),
        precision=str(settings["precision"]),
        sr={metric: getattr(sr, name) for metric, name in FIELDS.items()},
        bicubic={metric: getattr(bicubic, name) for metric, name in FIELDS.items()},
    )


def as_entries(claims: Sequence[Claim], scale: int) -> list[EvalResult]:
    """The metadata of a card that claims these scores; `claims_in_card` reads it."""
    entries = []
    for claim in claims:
        for metric, title in METRICS.items():
            value = claim.sr[metric]
            if value is None:
                continue
            bicubic = claim.bicubic[metric]
            entries.append(
                EvalResult(
                    task_type="image-to-image",
                    task_name="Image Super-Resolution",
                    dataset_type=re.sub(r"[^\w.-]+", "-", claim.dataset).lower(),
                    dataset_name=claim.dataset,
                    dataset_config=_setting(claim, scale),
                    dataset_args={
                        "images": claim.images,
                        "lr": claim.lr,
                        "precision": claim.precision,
                        **({} if claim.fidelity is None else {"fidelity": claim.fidelity}),
                    },
                    metric_type=metric,
                    metric_name=title,
                    metric_value=round(value, 4),
                    metric_args=None if bicubic is None else {"bicubic": round(bicubic, 4)},
                )
            )
    return entries


def _setting(claim: Claim, scale: int) -> str:
    parts = [f"x{scale}", f"lr {claim.lr}", claim.precision]
    if claim.fidelity is not None:
        parts.append(f"fidelity {claim.fidelity:g}")
    return ", ".join(parts)


def claims_in_card(card: str) -> list[Claim]:
    """The scores that the metadata of a card claims, as `as_entries` made them.

    Raises:
        ValueError: If the metadata is broken, or a score does not say what it was measured on. Scores of
            other metrics than `METRICS` are left out.
    """
    claims: dict[str, Claim] = {}
    for result in card_data(card).eval_results or []:
        if result.metric_type not in list(METRICS):
            continue
        claim = _claim_of_entry(result)
        claim = claims.setdefault(f"{claim} {result.dataset_args}", claim)
        bicubic = (result.metric_args or {}).get("bicubic")
        for scores, value in ((claim.sr, result.metric_value), (claim.bicubic, bicubic)):
            number = None if value is None and scores is claim.bicubic else _number(result, value)
            if scores[result.metric_type] not in (None, number):
                raise _bad_entry(result, f"one value, {scores[result.metric_type]}", number)
            scores[result.metric_type] = number
    return list(claims.values())


def _claim_of_entry(result: EvalResult) -> Claim:
    """The claim that an entry of a card's metadata belongs to, without scores."""
    settings, arguments = result.dataset_args, result.metric_args
    for name, value in (("dataset args", settings), ("metric args", arguments or {})):
        if not isinstance(value, dict):
            raise _bad_entry(result, f"a mapping as its {name}", value)
    assert settings is not None
    dataset = result.dataset_name
    if not isinstance(dataset, str) or dataset in ("", "..") or Path(dataset).name != dataset:
        raise _bad_entry(result, "the name of a folder as its dataset", dataset)
    images, lr = settings.get("images"), settings.get("lr")
    if type(images) is not int:
        raise _bad_entry(result, "a whole number as its images", images)
    if not isinstance(lr, str) or not _LR.fullmatch(lr):
        raise _bad_entry(result, f"'{PUBLISHED}' or '<degradation>, seed <number>' as its lr", lr)
    precision, fidelity = settings.get("precision"), settings.get("fidelity")
    if precision not in ("float32", "bfloat16"):
        raise _bad_entry(result, "float32 or bfloat16 as its precision", precision)
    if fidelity is not None and not (type(fidelity) in (int, float) and 0 <= fidelity <= 1):
        raise _bad_entry(result, "a number in [0, 1] as its fidelity", fidelity)
    return Claim(dataset, images, lr, fidelity, precision, dict.fromkeys(METRICS), dict.fromkeys(METRICS))


def _number(result: EvalResult, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # what is no number is caught
    except (TypeError, ValueError, OverflowError) as error:
        raise _bad_entry(result, "a number", value) from error


def _bad_entry(result: EvalResult, expected: str, got: object) -> ValueError:
    return ValueError(
        f"the score {result.metric_type} on {result.dataset_name} must have {expected}, got {got!r}"
    )


def card_data(card: str) -> ModelCardData:
    """The metadata of a card.

    Raises:
        ValueError: If it is broken.
    """
    try:
        data = ModelCard(card).data
    except (ValueError, TypeError, AttributeError, RecursionError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"a card must begin with metadata between lines ---, got: {reason}") from error
    assert isinstance(data, ModelCardData)
    return data


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: If it holds none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON, got: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content
