"""Parts of the page without a browser: what the controls ask for, and the words it shows."""

import base64
import io
from pathlib import Path

import gradio as gr
import pytest
from page_driver import make_models, make_photo
from PIL import Image

from sr_hub.families import ModelFacts
from sr_hub.known_picture import KnownScores
from sr_hub.page import theme
from sr_hub.page_controls import Controls, build_controls, facts_text
from sr_hub.page_pictures import example_pictures
from sr_hub.page_words import floor_percent, result_facts, score_table, teller
from sr_hub.pretrained import bundled_models
from sr_hub.service import Service, Settings


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    family, single = make_models(tmp_path_factory.mktemp("models"))
    return str(family), str(single)


@pytest.fixture(scope="module")
def controls(models: tuple[str, str]) -> Controls:
    with gr.Blocks():
        return build_controls(Service(), models[0])


def test_all_bundled_families_are_offered(controls: Controls, models: tuple[str, str]) -> None:
    assert [name for name, _ in controls.model.choices] == [*bundled_models(), models[0]]
    assert controls.model.value == models[0] and controls.fidelity.visible


def test_values_become_settings(controls: Controls, models: tuple[str, str]) -> None:
    family, single = models
    assert controls.settings(family, 1, "4", None, False) == Settings(family, fidelity=1.0)
    assert controls.settings(family, 0.25, "2", 7, True) == Settings(
        family, 0.25, scale=2.0, consistency=True
    )
    assert controls.settings(f" {single} ", 0.25, "width", 100.0, False) == Settings(single, width=100)


@pytest.mark.parametrize(
    ("model", "width", "message"),
    [
        ("", 9, "choose a model: "),
        ("nobody", 9, "model must be one of"),
        (None, 9, "choose"),
        ("clean", 0, "at least 1, got 0"),
        ("clean", None, "got None"),
        ("clean", 1.5, "got 1.5"),
    ],
)
def test_wrong_values_are_told(
    controls: Controls, model: str | None, width: float | None, message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        controls.settings(model, 0.5, "width", width, False)


def test_facts_of_a_bundled_family_hold_its_scores() -> None:
    facts = Service().facts("clean")
    text = facts_text(facts)
    assert text.startswith("4× · 0.69 million weights · two ends · licence: apache-2.0")
    claim = facts.claims[0]
    assert (
        f"| {claim.dataset} | {claim.fidelity:g} | {claim.sr['psnr']:.2f} | {claim.sr['lpips']:.3f} |" in text
    )
    assert f"| {claim.dataset} | bicubic | {claim.bicubic['psnr']:.2f} |" in text


def test_facts_tell_scores_of_damaged_pictures_apart() -> None:
    facts = Service().facts("photo")
    text = facts_text(facts)
    by_lr = {claim.lr: claim for claim in facts.claims if claim.dataset == "Set14" and claim.fidelity == 1}
    for lr, name in (("as published", "Set14"), ("photo, seed 0", "Set14 photo")):
        claim = by_lr[lr]
        assert f"| {name} | 1 | {claim.sr['psnr']:.2f} | {claim.sr['lpips']:.3f} |" in text
        assert f"| {name} | bicubic | {claim.bicubic['psnr']:.2f} | {claim.bicubic['lpips']:.3f} |" in text


def test_foreign_words_are_no_markup() -> None:
    bad = "<script>alert(1)</script> [x](y) | z"
    assert not set("<>[]()|") & set(facts_text(ModelFacts("m", False, 4, 1000, license=bad)))
    assert "<script" not in result_facts(bad, 0.5, [bad])
    assert "<script" not in score_table(KnownScores(1, 1, 1, 1), (8, 8), (2, 2), [bad])


def test_percentages_never_say_more_than_there_is() -> None:
    assert [floor_percent(share) for share in (1, 0.99999, 0.5, 0.98765, 0)] == [
        "100 %", "99.9 %", "50 %", "98.7 %", "0 %",
    ]  # fmt: skip


def test_score_table_says_sizes_and_figures() -> None:
    text = score_table(KnownScores(30.126, 0.91234, 28.5, 0.85), (98, 80), (24, 20), ["the middle"])
    for part in ("98×80", "24×20", "30.13 dB", "0.9123", "28.50 dB", "0.8500", "the middle"):
        assert part in text


def test_greys_of_the_light_mode_can_be_read() -> None:
    colors = theme()
    assert colors.body_text_color_subdued == colors.block_info_text_color.replace(
        "body_text_color_subdued", "neutral_600"
    )
    assert colors.body_text_color_subdued_dark == "*neutral_400"

    def light(color: str) -> float:  # relative luminance, WCAG 2
        levels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    grey = getattr(colors, colors.body_text_color_subdued[1:])
    assert 1.05 / (light(grey) + 0.05) >= 4.5


def test_progress_tells_tiles_and_time_to_go() -> None:
    said = []
    tell = teller(lambda *words, **named: said.append((words, named)), "Enlarging")
    tell(2, 8)
    ((words, named),) = said
    assert words == ((2, 8),) and named["unit"] == "tiles"
    assert named["desc"].startswith("Enlarging, about 0 s to go")


def test_examples_have_names_and_thumbnails(tmp_path: Path) -> None:
    make_photo(tmp_path, "old_town.png", (100, 60))
    (tmp_path / "README.md").write_text("no picture")
    (example,) = example_pictures(tmp_path)
    assert example.name == "old town" and example.path == tmp_path / "old_town.png"
    head, data = example.thumbnail.split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (184, 184)
    assert example_pictures(tmp_path / "nowhere") == []
    assert len(example_pictures()) >= 3
