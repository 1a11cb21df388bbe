"""``sr-hub verify``: the scores that a model's card claims, measured again."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sr_hub.claims import METRICS, TOLERANCES, Claim, claim_of, claims_in_card
from sr_hub.hub_files import HubOptions
from sr_hub.measuring import measure
from sr_hub.metrics import LPIPS
from sr_hub.model_card import CARD_FILE, is_rendered
from sr_hub.pretrained import find_beside


@dataclass(frozen=True)
class _Row:
    """One score; ``measured`` is None where it could not be measured here."""

    name: str
    metric: str
    claimed: float
    measured: float | None

    @property
    def differs(self) -> bool:
        return (
            self.measured is not None
            and self.measured != self.claimed  # also where both are infinite
            and not abs(self.measured - self.claimed) <= TOLERANCES[self.metric]
        )


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds ``verify`` to the command line; its ``run`` takes the parsed arguments."""
    tolerances = ", ".join(f"{value} {METRICS[metric]}" for metric, value in TOLERANCES.items())
    parser = subparsers.add_parser(
        "verify",
        help="measure again what a model's card claims",
        description="Measures the scores of a model's card again on the image sets that are here. Exit "
        f"code 1 where one differs by more than {tolerances}.",
    )
    parser.add_argument("model", help="Hub repository user/name, model folder or bundled name")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="an image set named as in the card, or a folder with such sets inside",
    )
    parser.add_argument("--lpips", type=Path, metavar="FILE", help="LPIPS (AlexNet) weights, safetensors")
    parser.add_argument("--revision", help="branch, tag or commit of the repository")
    parser.add_argument("--token", help="Hub token (default: that of the login)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints claimed against measured.

    Returns:
        1 if a score differs by more than its tolerance, else 0.

    Raises:
        OSError, ValueError: With one sentence to show, if there is no card, claim or image set.
    """
    hub = HubOptions(revision=arguments.revision, token=arguments.token)
    card = find_beside(arguments.model, CARD_FILE, hub)
    if card is None:
        raise FileNotFoundError(f"{arguments.model} must hold {CARD_FILE}, the card, which is not there")
    try:
        text = card.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{card} must be UTF-8 text, got: {error}") from error
    claims = claims_in_card(text)
    if not claims:
        raise ValueError(f"the card of {arguments.model} must claim scores in its metadata, got none")
    lpips = None if arguments.lpips is None else LPIPS.from_file(arguments.lpips)
    folders = {claim.dataset: _folder_of(arguments.data, claim.dataset) for claim in claims}
    absent = sorted(name for name, folder in folders.items() if folder is None)
    if len(absent) == len(folders):
        raise FileNotFoundError(
            f"{arguments.data} must hold one of the card's image sets {', '.join(absent)}, got none of them"
        )
    rows: list[_Row] = []
    for claim in claims:
        folder = folders[claim.dataset]
        if folder is not None:
            found = _measured(arguments.model, claim, folder, lpips, hub)
            rows += [row for row in _rows(claim, found) if row not in rows]  # bicubic's once for a set
    _print(rows)
    if absent:
        print(f"not checked, as {arguments.data} does not hold them: {', '.join(absent)}")
    unmeasured = [row for row in rows if row.measured is None]
    if unmeasured:
        print(f"{len(unmeasured)} LPIPS scores not checked: they need --lpips FILE")
    if not is_rendered(text):
        print("the card was edited by hand: the scores of its metadata were checked, its text was not")
    wrong = sum(row.differs for row in rows)
    print(f"{len(rows) - len(unmeasured) - wrong} scores hold, {wrong} differ")
    return 1 if wrong else 0


def _folder_of(data: Path, dataset: str) -> Path | None:
    if not data.is_dir():
        raise FileNotFoundError(f"no folder of image sets at {data}")
    candidates = [data / dataset, *([data] if data.resolve().name == dataset else [])]
    return next((path for path in candidates if path.is_dir()), None)


def _measured(model: str, claim: Claim, folder: Path, lpips: LPIPS | None, hub: HubOptions) -> Claim:
    """``claim`` with the scores found here.

    Raises:
        ValueError: If the set is not the one of the claim.
    """
    degradation, seed = claim.degradation
    evaluation = measure(
        model,
        folder,
        fidelity=claim.fidelity,
        degradation=degradation,
        seed=seed,
        precision={"float32": "fp32", "bfloat16": "bf16"}.get(claim.precision, claim.precision),
        lpips=lpips if claim.sr["lpips"] is not None else None,
        hub=hub,
    )
    found = claim_of(evaluation.settings, len(evaluation.images), evaluation.sr, evaluation.bicubic)
    for name, wanted, got in (
        ("LR images", claim.lr, found.lr),
        ("number of images", claim.images, found.images),
    ):
        if wanted != got:
            raise ValueError(f"{folder}: {name} must be as in the card, {wanted}, got {got}")
    return found


def _rows(claim: Claim, found: Claim) -> Iterator[_Row]:
    label = f"{claim.dataset}, {claim.lr}"
    ours = label if claim.fidelity is None else f"{label}, fidelity {claim.fidelity:g}"
    for name, claimed, measured in (
        (ours, claim.sr, found.sr),
        (label + ", bicubic", claim.bicubic, found.bicubic),
    ):
        for metric, value in claimed.items():
            if value is not None:
                yield _Row(name, metric, value, measured[metric])


def _print(rows: list[_Row]) -> None:
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}}  {'score':7} {'claimed':>9} {'measured':>9}")
    for row in rows:
        measured = "-" if row.measured is None else f"{row.measured:.4f}"
        verdict = "  DIFFERS" if row.differs else ""
        print(f"{row.name:{width}}  {METRICS[row.metric]:7} {row.claimed:9.4f} {measured:>9}{verdict}")
