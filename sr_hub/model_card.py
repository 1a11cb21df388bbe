"""The model card: ``model_card.md`` filled with the facts that lie in a model's folder."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from huggingface_hub import ModelCardData
from safetensors import SafetensorError, safe_open

from sr_hub.claims import (
    DEGRADATIONS_IN_WORDS,
    FIELDS,
    METRICS,
    TOLERANCES,
    Claim,
    as_entries,
    card_data,
    claim_in,
    read_json,
)
from sr_hub.pretrained import BUNDLED, CONFIG_FILE, DEFAULT_FIDELITY, FIDELITY_FILE, WEIGHTS_FILE, reach
from sr_hub.training_record import RECORD_FILE, Leg, read_record, sha256_of

CARD_FILE = "README.md"
PICTURE_FILE = "before_after.png"
RESULTS_FOLDER = "results"

_DIGITS = {"psnr": 2, "ssim": 4, "lpips": 4}
_SEAL = re.compile(r"\n<!-- sr-hub card ([0-9a-f]{16}) -->\n\Z")


@dataclass(frozen=True)
class CardOptions:
    """What the card says beyond, or instead of, the files in the model's folder."""

    name: str | None = None
    repo_id: str | None = None
    license: str | None = None
    data_statement: str | None = None
    datasets: tuple[str, ...] = ()
    evaluations: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Speed:
    """Time to enlarge: ``seconds`` per megapixel of output."""

    machine: str
    precision: str
    seconds: float


@dataclass(frozen=True)
class _Facts:
    """All that the files in a folder say."""

    folder: Path
    config: dict[str, int]
    shapes: dict[str, list[int]]
    legs: list[Leg] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    speeds: list[Speed] = field(default_factory=list)


def render_card(folder: Path, options: CardOptions | None = None) -> str:
    """The card of the model in ``folder``, as Markdown with the Hub's metadata on top.

    Read are ``config.json``, the weights' header, and where present ``training_record.json``, pictures
    ``before_after*`` and ``results/*.json``: scores as ``sr-hub evaluate --json`` writes them, and times
    ``{"seconds_per_output_megapixel": [{"machine", "precision", "seconds"}, ...]}``.

    Raises:
        FileNotFoundError: If config or weights are missing.
        ValueError: If one of the files is not what it should be.
    """
    options = options or CardOptions()
    facts = _read_facts(folder, options)
    legs = told_legs(facts.legs, options)
    license_ = license_of(facts.legs, options)
    name = options.name or (options.repo_id or folder.resolve().name).split("/")[-1]
    bundled = folder.resolve().parent == BUNDLED.resolve()
    parameters = sum(_product(shape) for shape in facts.shapes.values())
    # Every convolution runs once for each pixel of the input: its multiply-adds are its weights.
    macs = sum(_product(shape) for shape in facts.shapes.values() if len(shape) == 4)
    scale = facts.config["scale"]
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {"line": _line, "cell": lambda text: _line(text).replace("|", "\\|")}
    environment.filters["heading"] = lambda text: re.sub(r"[\\`*\[\]<]", r"\\\g<0>", " ".join(text.split()))
    text = environment.from_string(_template()).render(
        metadata=_metadata(name, license_, facts, options).to_yaml(),
        name=name,
        address=options.repo_id or (folder.name if bundled else "."),
        **facts.config,
        parameters=f"{parameters:,}",
        parameters_m=f"{parameters / 1e6:.2f}",
        macs_per_lr_pixel=f"{macs:,}",
        macs_g=f"{macs / scale**2 / 1e3:.0f}" if macs > 1e5 else f"{macs / scale**2 / 1e3:.2g}",
        radius=reach(facts.config["blocks"]),
        license=license_,
        two_ends=(folder / FIDELITY_FILE).is_file(),
        default_fidelity=DEFAULT_FIDELITY,
        pictures=[path.name for path in pictures(folder)],
        files=[
            {"name": path.name, "bytes": f"{path.stat().st_size:,}", "sha256": sha256_of(path)}
            for path in (folder / WEIGHTS_FILE, folder / FIDELITY_FILE)
            if path.is_file()
        ],
        legs=[_leg_row(leg) for leg in legs],
        degradations={leg.settings.get("degradation") for leg in facts.legs},
        data_statement=_statement_of_all(legs, options.data_statement),
        scores=_score_rows(facts.claims),
        trained_by_lpips=any(
            leg.settings.get("lpips_weight") and leg.steps.get("adversarial") for leg in facts.legs
        ),
        speeds=[dataclasses.asdict(speed) for speed in facts.speeds],
        tolerances=TOLERANCES,
    )
    text = re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"
    return text + f"\n<!-- sr-hub card {_digest(text)} -->\n"


def write_card(folder: Path, options: CardOptions | None = None, *, keep_edited: bool = False) -> Path:
    """Renders the card of the model in ``folder`` into its ``README.md``.

    Args:
        folder: The model.
        options: As for `render_card`.
        keep_edited: Leave a ``README.md`` that was written or edited by hand as it is.

    Raises:
        FileExistsError: If there is such a ``README.md`` and it is not to be kept.
        FileNotFoundError, ValueError: As `render_card`.
    """
    path = folder / CARD_FILE
    if path.exists() and not is_rendered(path.read_text(encoding="utf-8")):
        if keep_edited:
            return path
        raise FileExistsError(
            f"{path} must be as it was rendered, got one edited by hand: move it away first"
        )
    text = render_card(folder, options)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def is_rendered(card: str) -> bool:
    """Whether ``card`` came from `render_card` and was not edited since."""
    seal = _SEAL.search(card)
    return seal is not None and seal[1] == _digest(card[: seal.start()])


def pictures(folder: Path) -> list[Path]:
    """The before/after pictures of a model's folder."""
    return sorted(path for path in folder.glob("before_after*") if is_picture(path.name))


def is_picture(name: str) -> bool:
    """Whether a file of this name, at the top of a model's folder, is a before/after picture."""
    return re.fullmatch(r"before_after[^/]*\.(png|jpg|webp|avif)", name) is not None


def is_blank(card: str) -> bool:
    """Whether a card has metadata at most, as that of a new repository."""
    return not re.sub(
        r"\A---\n.*?^---$", "", card.replace("\r\n", "\n"), flags=re.DOTALL | re.MULTILINE
    ).strip()


def license_in_card(card: str) -> str | None:
    """The licence that a card's metadata names."""
    return card_data(card).license


def told_legs(legs: Sequence[Leg], options: CardOptions) -> list[Leg]:
    """``legs``, with the licence and the data statement of ``options`` where a leg has none."""
    told = []
    for leg in legs:
        statement = leg.data.statement if _text(leg.data.statement) else _text(options.data_statement)
        data = dataclasses.replace(leg.data, statement=statement)
        told.append(dataclasses.replace(leg, license=leg.license or options.license, data=data))
    return told


def license_of(legs: Sequence[Leg], options: CardOptions) -> str | None:
    """The licence that ``options`` or else the newest of the legs names."""
    return options.license or next((leg.license for leg in reversed(legs) if leg.license), None)


def _template() -> str:
    """``model_card.md``: beside the module when installed, at the root of a checkout."""
    here = Path(__file__).parent
    installed = here / "model_card.md"
    return (installed if installed.is_file() else here.parent / "model_card.md").read_text(encoding="utf-8")


def _read_facts(folder: Path, options: CardOptions) -> _Facts:
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder} must hold {file}, which is not there")
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_FILE} must be a safetensors file, got: {error}") from error
    facts = _Facts(folder, read_json(folder / CONFIG_FILE), shapes)
    if (folder / RECORD_FILE).is_file():
        facts.legs.extend(read_record(folder / RECORD_FILE))
    for path in [*sorted((folder / RESULTS_FOLDER).glob("*.json")), *options.evaluations]:
        content = read_json(path)
        if "seconds_per_output_megapixel" in content:
            facts.speeds.extend(Speed(**entry) for entry in content["seconds_per_output_megapixel"])
        elif "mean" in content:
            facts.claims.append(claim_in(content, path))
        else:
            raise ValueError(
                f"{path} must hold scores of sr-hub evaluate --json or seconds_per_output_megapixel, "
                f"got {', '.join(content)}"
            )
    facts.claims.sort(key=lambda claim: (claim.dataset, claim.lr, claim.precision, -(claim.fidelity or 0)))
    return facts


def _metadata(name: str, license_: str | None, facts: _Facts, options: CardOptions) -> ModelCardData:
    results = as_entries(facts.claims, facts.config["scale"])
    bases = [leg.start.model for leg in facts.legs if leg.start is not None and leg.start.hub]
    return ModelCardData(
        license=license_,
        library_name="sr_hub",
        pipeline_tag="image-to-image",
        tags=["super-resolution", "image-upscaling", "pytorch", f"x{facts.config['scale']}"],
        datasets=list(options.datasets) or None,
        metrics=[m for m in METRICS if any(m == result.metric_type for result in results)] or None,
        base_model=bases[-1:] or None,  # the nearest, as the Hub draws a tree of them
        model_name=name,
        eval_results=results or None,
    )


def _score_rows(claims: list[Claim]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    seen = set()
    for claim in claims:
        images = f"{claim.dataset} ({claim.images})"
        if (claim.dataset, claim.lr) not in seen:
            seen.add((claim.dataset, claim.lr))
            rows.append(_score_row(images, claim.lr, "bicubic", claim.bicubic))
        model = "this model" if claim.fidelity is None else f"this model, fidelity {claim.fidelity:g}"
        if claim.precision != "float32":
            model += f", {claim.precision}"
        rows.append(_score_row(images, claim.lr, model, claim.sr))
    return rows


def _score_row(images: str, lr: str, model: str, scores: dict[str, float | None]) -> dict[str, str]:
    # PSNR is always measured: in the files of scores, as in JSON, there is no number for an infinite one.
    absent = {"psnr": "infinite"}
    cells = {
        FIELDS[metric]: absent.get(metric, "not measured")
        if value is None
        else f"{value:.{_DIGITS[metric]}f}"
        for metric, value in scores.items()
    }
    return {"images": images, "lr": lr, "model": model, **cells}


def _hours(hours: float) -> str:
    return f"{hours:,.0f} hours" if hours >= 10 else f"{hours:.2g} hours"


def _leg_row(leg: Leg) -> dict[str, str | int | None]:
    start = "new weights"
    if leg.start is not None:
        start = f"`{leg.start.model}`"
        if leg.start.sha256 is not None:
            start += f", SHA-256 of its weights `{leg.start.sha256}`"
        if leg.start.fidelity is not None:
            start += f", fidelity {leg.start.fidelity:g}"
    count = [] if leg.data.images is None else [f"{leg.data.images:,} images"]
    count += [] if leg.data.megapixels is None else [f"{leg.data.megapixels:,.1f} megapixels"]
    machine = "not recorded"
    if leg.machine is not None:
        machine = f"{leg.machine.name}, {leg.machine.threads} thread{'s' if leg.machine.threads > 1 else ''}"
        if leg.machine.processes > 1:
            machine += f", {leg.machine.processes} processes"
    validation = None
    if leg.validation is not None:
        validation = (
            f"{leg.validation.images}: PSNR-Y {leg.validation.psnr_y:.2f} dB, "
            f"bicubic {leg.validation.psnr_y_bicubic:.2f} dB"
        )
    degradation = leg.settings.get("degradation", "not recorded")
    ticks = max(map(len, re.findall("`+", leg.command)), default=0)
    return {
        "start": start,
        "images": ", ".join(count) or "not counted",
        "statement": leg.data.statement,
        "degradation": DEGRADATIONS_IN_WORDS.get(degradation, degradation),
        "steps": ", ".join(f"{steps:,} {phase}" for phase, steps in leg.steps.items()),
        "seed": leg.seed,
        "time": "not recorded" if leg.hours is None else _hours(leg.hours),
        "machine": machine,
        "versions": ", ".join(f"{package} {version}" for package, version in leg.versions.items()),
        "validation": validation,
        "command": leg.command,
        "fence": "`" * max(3, ticks + 1),
        "afterwards": leg.afterwards,
    }


def _statement_of_all(legs: list[Leg], said: str | None) -> str | None:
    """The sentence on the data above all legs; one that no leg has taken over, ``said``, stands there."""
    statements = [leg.data.statement for leg in legs]
    if _text(said) and _text(said) not in statements:
        return _text(said)
    if len(set(statements)) > 1:
        lacking = " where it was recorded" if None in statements else ""
        return f"its origin and licences stand with each run below{lacking}."
    return statements[0] if statements else None


def _text(value: str | None) -> str | None:
    """``value`` without blanks around it; None for a blank one."""
    return (value or "").strip() or None


def _line(text: object) -> str:
    """``text`` as one line of Markdown that brings no HTML along: records come from strangers, too."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
