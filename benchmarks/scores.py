"""The tables of scores in the README, from the JSON files that ``sr-hub evaluate --json`` wrote."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sr_hub.claims import PUBLISHED
from sr_hub.pretrained import DEFAULT_FIDELITY

_SETS = ("Set5", "Set14", "BSD100")  # in this order; others after them
_FIDELITIES = {
    "1.0": "fidelity 1",
    "0.5": "fidelity 0.5",
    str(DEFAULT_FIDELITY): f"fidelity {DEFAULT_FIDELITY:g}, the default",
    "0.0": "fidelity 0",
}


@dataclass(frozen=True)
class Score:
    """Means over one set: PSNR-Y in dB and LPIPS. ``lr`` tells how its LR images were made."""

    model: str
    fidelity: str
    data: str
    lr: str
    psnr_y: float
    lpips: float

    def __str__(self) -> str:
        return f"{self.psnr_y:.2f} / {self.lpips:.3f}"


def read_scores(folder: Path) -> list[Score]:
    """All scores of models themselves, no ensembles, in a folder tree, each bicubic row once."""
    found: dict[tuple[str, ...], Score] = {}
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "mean" not in content or "lpips" not in content["mean"]["sr"]:
            continue
        settings, mean = content["settings"], content["mean"]
        if "ensemble" in settings:
            continue
        data, lr = settings["data"], settings["lr"]
        for model, fidelity, means in (
            (settings["model"], settings.get("fidelity", ""), mean["sr"]),
            ("bicubic", "", mean["bicubic"]),
        ):
            score = Score(model, fidelity, data, lr, means["psnr_y"], means["lpips"])
            found[model, fidelity, data, lr] = score
    return list(found.values())


def scores_table(scores: Iterable[Score], lr: str = PUBLISHED) -> str:
    """Markdown, ``PSNR-Y / LPIPS``: a row for each model and end, bicubic last, a column for each set."""
    cells = {
        (score.model, score.fidelity, score.data): score
        for score in scores
        if score.lr == lr and (score.fidelity in _FIDELITIES or not score.fidelity)
    }
    sets = sorted({data for *_, data in cells}, key=lambda data: (*(data != name for name in _SETS), data))
    rows = sorted(
        {key[:2] for key in cells},
        key=lambda row: (row[0] == "bicubic", row[0], [*_FIDELITIES, ""].index(row[1])),
    )
    lines = [f"| | {' | '.join(sets)} |", f"|---{'|---' * len(sets)}|"]
    for model, fidelity in rows:
        name = f"{model}, {_FIDELITIES[fidelity]}" if fidelity else model
        values = [str(cells.get((model, fidelity, data), "")) for data in sets]
        lines.append(f"| {name} | {' | '.join(values)} |")
    return "\n".join(lines)
