"""The settings of a result that all parts of the page share."""

import re
from dataclasses import dataclass
from typing import Any

import gradio as gr

from sr_hub.families import ModelFacts
from sr_hub.pretrained import DEFAULT_FIDELITY, bundled_models
from sr_hub.service import Service, Settings

WIDTH = "width"

CANNOT_START = "Nothing came of it: the server is busy, or a number is missing or out of its slider's range."
"""What is said where gradio itself refuses a run."""


@dataclass(frozen=True)
class Controls:
    """The components, and what their values mean.

    Attributes:
        service: Knows the models.
        model, fidelity, scale, width, consistency: Components.
        facts: Shows the model's card.
        ends: Says what the fidelity means.
    """

    service: Service
    model: gr.Dropdown
    fidelity: gr.Slider
    scale: gr.Radio
    width: gr.Number
    consistency: gr.Checkbox
    facts: gr.Markdown
    ends: gr.HTML

    @property
    def inputs(self) -> list[Any]:
        """The components whose values `settings` takes, in its order."""
        return [self.model, self.fidelity, self.scale, self.width, self.consistency]

    def settings(
        self, model: str | None, fidelity: float, scale: str, width: float | None, consistency: bool
    ) -> Settings:
        """What the values of `inputs` ask for; a scale of "" is the model's own.

        Raises:
            ValueError: If there is no such model, or the width is missing or no whole number above 0.
            OSError: As of `service.facts`.
        """
        name = (model or "").strip()
        if not name:
            raise ValueError(f"choose a model: {', '.join(bundled_models())}, a folder or a Hub repository")
        facts = self.service.facts(name)
        return Settings(
            model=name,
            fidelity=float(fidelity) if facts.two_ends else None,
            # The model's own scale is no wish, so that the file says the same as that of the command line.
            scale=None if scale in ("", WIDTH, str(facts.scale)) else float(scale),
            width=_whole(width) if scale == WIDTH else None,
            consistency=bool(consistency),
        )


def build_controls(service: Service, model: str) -> Controls:
    """Draws the components, for a model that is found.

    Raises:
        ValueError, OSError: As of `service.facts`.
    """
    facts = service.facts(model)
    choices = list(dict.fromkeys([*bundled_models(), model]))
    with gr.Group():
        fidelity = gr.Slider(
            0, 1, value=DEFAULT_FIDELITY, step=0.05, label="Fidelity", visible=facts.two_ends,
            elem_id="fidelity",
        )  # fmt: skip
        ends = gr.HTML(
            "<span>0: more detail,<br>some of it invented</span><span>1: true to the photo,<br>softer</span>",
            visible=facts.two_ends, elem_id="ends",
        )  # fmt: skip
        scale = gr.Radio(
            [("2×", "2"), ("3×", "3"), ("4×", "4"), ("Width", WIDTH)], value=str(facts.scale), label="Size",
            elem_id="scale",
        )  # fmt: skip
        width = gr.Number(
            1920, label="Width in pixels", precision=0, visible=False, elem_id="width",
        )  # fmt: skip
        consistency = gr.Checkbox(
            False, label="Bind to the photo", elem_id="consistency",
            info="The result, shrunk again, then gives back the photo as closely as it can.",
        )  # fmt: skip
    with gr.Accordion("Model", open=False, elem_id="model-box"):
        chosen = gr.Dropdown(
            choices, value=model, label="Family, folder or Hub repository", allow_custom_value=True,
            info="Type user/name for one of the Hub; it is fetched once.", elem_id="model",
        )  # fmt: skip
        card = gr.Markdown(facts_text(facts), elem_id="model-facts")
    scale.input(
        lambda value: gr.Number(visible=value == WIDTH), scale, width,
        queue=False, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    return Controls(service, chosen, fidelity, scale, width, consistency, card, ends)


def facts_text(facts: ModelFacts) -> str:
    """The facts of a model's card, as Markdown that nobody else's words can break."""
    ends = "two ends" if facts.two_ends else "one end"
    license_ = _plain(facts.license) if facts.license else "not told"
    lines = [f"{facts.scale}× · {facts.parameters / 1e6:.2f} million weights · {ends} · licence: {license_}"]
    if facts.claims:
        lines += ["", "| by its card | fidelity | PSNR-Y | LPIPS |", "|:--|:--|--:|--:|"]
    for dataset, lr in dict.fromkeys((claim.dataset, claim.lr) for claim in facts.claims):
        claims = [claim for claim in facts.claims if (claim.dataset, claim.lr) == (dataset, lr)]
        degradation, _ = claims[0].degradation
        name = dataset if degradation is None else f"{dataset} {degradation}"
        rows = [("" if claim.fidelity is None else f"{claim.fidelity:g}", claim.sr) for claim in claims]
        for fidelity, scores in [*rows, ("bicubic", claims[0].bicubic)]:
            cells = (_plain(name), fidelity, _figure(scores["psnr"], 2), _figure(scores["lpips"], 3))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    return re.sub(r"[^\w .+-]", "_", text)


def _figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _whole(width: float | None) -> int:
    if width is None or width < 1 or width != int(width):
        raise ValueError(f"width must be a whole number of pixels, at least 1, got {width}")
    return int(width)
