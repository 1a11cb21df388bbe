"""Models that one process serves: read once, kept, and blended for whoever asks."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from sr_hub import settings as work
from sr_hub.claims import Claim, claims_in_card
from sr_hub.generator import DEFAULT_FIDELITY, SRGenerator
from sr_hub.hub_files import HubOptions
from sr_hub.model_card import CARD_FILE, license_in_card
from sr_hub.pretrained import ModelFiles, find_beside, find_model


@dataclass(frozen=True)
class ModelFacts:
    """What a model is.

    Attributes:
        name: As it was asked for.
        two_ends: Whether fidelity can be chosen.
        scale: Output pixels per input pixel.
        parameters: Weights of the network.
        license: By its card; None where that says nothing.
        claims: Scores by its card.
        revision: Commit of its repository.
    """

    name: str
    two_ends: bool
    scale: int
    parameters: int
    license: str | None = None
    claims: tuple[Claim, ...] = ()
    revision: str | None = None


@dataclass(frozen=True, eq=False)
class _Family:
    """A model's files, read once: its ends, the GAN end first, and what is said of it."""

    ends: tuple[SRGenerator, ...]
    model: work.Model
    facts: ModelFacts


class Families:
    """The last few models that were asked for, each with its ends and blends of them.

    Args:
        device: Where networks run.
        models: Names that may be asked for; None for any.
    """

    def __init__(self, device: torch.device, models: Collection[str] | None) -> None:
        self._device = device
        self._allowed = None if models is None else tuple(models)
        self._family = lru_cache(maxsize=4)(self._load)
        self._blended = lru_cache(maxsize=8)(self._blend)

    def facts(self, model: str) -> ModelFacts:
        """What is known of a model.

        Raises:
            OSError, ValueError: If it may not be asked for, cannot be had or is broken.
        """
        return self._find(model).facts

    def generator(self, model: str, fidelity: float | None) -> SRGenerator:
        """The model in eval mode on the device; shared, so nobody may change it.

        Raises:
            OSError, ValueError: As `facts`; and if `fidelity` is asked of a model with one end.
        """
        family = self._find(model)
        if len(family.ends) == 1:
            if fidelity is not None:
                raise ValueError(f"{model} has one end only: fidelity cannot be chosen, got {fidelity:g}")
            return family.ends[0]
        return self._blended(model, DEFAULT_FIDELITY if fidelity is None else float(fidelity))

    def model(self, name: str, fidelity: float | None) -> work.Model:
        """What results say of it.

        Raises:
            OSError, ValueError: As `facts`.
        """
        model = self._find(name).model
        if model.fidelity is None or fidelity is None:
            return model
        return replace(model, fidelity=float(fidelity))

    def _find(self, model: str) -> _Family:
        if self._allowed is not None and model not in self._allowed:
            raise ValueError(f"model must be one of {', '.join(self._allowed)} here, got {model!r}")
        return self._family(model)

    def _load(self, model: str) -> _Family:
        files = find_model(model)
        shares = (None,) if files.fidelity is None else (0.0, 1.0)
        # By its commit, so that all parts are of one model, even if someone pushes meanwhile.
        ends = tuple(
            SRGenerator.from_pretrained(model, fidelity=share, revision=files.revision).to(self._device)
            for share in shares
        )
        return _Family(ends, work.Model.of_files(files), _facts_of(model, files, ends[0]))

    def _blend(self, model: str, fidelity: float) -> SRGenerator:
        detail, faithful = self._family(model).ends
        generator = SRGenerator(**detail.config).to(self._device)
        ends = zip(detail.state_dict().items(), faithful.state_dict().values(), strict=True)
        # As `SRGenerator.from_pretrained` does it, so that results are the same bit by bit.
        generator.load_state_dict({name: torch.lerp(low, high, fidelity) for (name, low), high in ends})
        return generator.eval()


def _facts_of(model: str, files: ModelFiles, generator: SRGenerator) -> ModelFacts:
    hub = HubOptions(revision=files.revision)
    card = find_beside(model, CARD_FILE, hub) if files.config is not None else None
    text = "" if card is None else card.read_text(encoding="utf-8")
    return ModelFacts(
        name=model,
        two_ends=files.fidelity is not None,
        scale=generator.scale,
        parameters=sum(value.numel() for value in generator.parameters()),
        license=license_in_card(text) if text else None,
        claims=tuple(claims_in_card(text)) if text else (),
        revision=files.revision,
    )
