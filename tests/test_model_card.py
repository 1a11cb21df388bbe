"""Cards of real model folders: every fact in its place, nothing made up, nothing left open."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from sr_hub import SRGenerator, cli
from sr_hub.claims import Claim, claims_in_card, read_evaluation
from sr_hub.generator import save_weights
from sr_hub.model_card import (
    CardOptions,
    is_rendered,
    render_card,
    write_card,
)
from sr_hub.training_record import Data, Leg, Machine, Start, Validation, read_record, write_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bare model: 3 features, 1 block."""
    torch.manual_seed(0)
    SRGenerator(features=3, blocks=1).save_pretrained(tmp_path / "thing")
    return tmp_path / "thing"


def leg(**changes: Any) -> Leg:
    facts: dict[str, Any] = {
        "command": "python train.py --data photos --seed 7", "settings": {"degradation": "bicubic"},
        "seed": 7,        "steps": {"pixel": 100_000, "adversarial": 20}, "hours": 3.25,
        "machine": Machine("Fast CPU", "cpu", 2), "versions": {"torch": "9.9", "sr_hub": "0.1"},
        "data": Data("Own photos, CC0", 1685, 388.2), "license": "apache-2.0",
        "validation": Validation("Set9", 30.125, 28.5), "start": None,
    }  # fmt: skip
    return Leg(**{**facts, **changes})


def evaluation(path: Path, psnr: float | None, *, lpips: float | None = None, **settings: str) -> None:
    scores = {"psnr_y": psnr, "ssim_y": 0.87654, "lpips": lpips, "lr_consistency": 50.0}
    bicubic = {"psnr_y": 28.4231, "ssim_y": 0.8104, "lpips": lpips, "lr_consistency": 45.0}
    path.parent.mkdir(exist_ok=True)
    settings = {"model": "m", "data": "Set5", "lr": "as published", "precision": "float32", **settings}
    content = {
        "scale": 4,
        "settings": settings,
        "mean": {"sr": scores, "bicubic": bicubic},
        "images": [{}] * 5,
    }
    path.write_text(json.dumps(content))


def test_a_model_without_facts_says_so(folder: Path) -> None:
    card = render_card(folder)
    for sentence in ("Licence of the weights | not stated", "How the model was trained was not recorded."):
        assert sentence in card
    assert card.count("Not measured.") == 2
    assert "not for identification" in card
    for word in ("{{", "{%", "None", "TODO", "More Information", "nan", "undefined"):
        assert word not in card
    data = ModelCard(card).data.to_dict()
    assert data == {
        "library_name": "sr_hub", "pipeline_tag": "image-to-image", "model_name": "thing",
        "tags": ["super-resolution", "image-upscaling", "pytorch", "x4"],
    }  # fmt: skip


def test_parameters_and_multiply_adds_are_those_of_the_network(folder: Path) -> None:
    # head 3*3*9, gate 3*9 + 9 + 3*9, block 2 * 3*3*9, tail 3*48*9; biases 3, 1 + 1 + 3, 2*3, 48
    macs = 81 + 63 + 2 * 81 + 1296
    assert f"| {macs:,} per input pixel |" in render_card(folder)
    parameters = sum(value.numel() for value in SRGenerator(features=3, blocks=1).parameters())
    assert parameters == macs + 62
    assert f"| Parameters | {parameters:,} |" in render_card(folder)
    assert "0.1 G multiply-adds per output megapixel" in render_card(folder)  # 1602 / 16 * 1e6


def test_every_leg_is_told(folder: Path) -> None:
    start = Start("jane/older", True, 0.25, "ab" * 32)
    second = leg(start=start, seed=8, data=Data("More | photos", None, None), hours=None, machine=None)
    second = dataclasses.replace(second, afterwards="Mean with | another.")
    write_record(folder / "training_record.json", [leg(), second])
    card = render_card(folder)
    for text in (
        "### Run 1 of 2", "### Run 2 of 2", "1,685 images, 388.2 megapixels", "100,000 pixel, 20 adversarial",
        "| Seed | 7 |", "| Seed | 8 |", "3.2 hours", "Fast CPU, 2 threads", "torch 9.9, sr_hub 0.1",
        "Set9: PSNR-Y 30.12 dB, bicubic 28.50 dB", "| Origin and licences | Own photos, CC0 |",
        r"| Origin and licences | More \| photos |", "bicubic: MATLAB's",
        "python train.py --data photos --seed 7",
        f"`jane/older`, SHA-256 of its weights `{'ab' * 32}`, fidelity 0.25", "| Images | not counted |",
        "| Time | not recorded |", "| Machine | not recorded |", "Licence of the weights | apache-2.0 |",
        r"| Afterwards | Mean with \| another. |",
    ):  # fmt: skip
        assert text in card, text
    assert card.count("| Afterwards |") == 1
    data = ModelCard(card).data
    assert data.license == "apache-2.0" and data.base_model == ["jane/older"]
    nearest = leg(start=Start("jane/newer", True, None, "cd" * 32))
    write_record(
        folder / "training_record.json", [leg(), second, nearest, leg(start=Start("run", False, 1, None))]
    )
    assert ModelCard(render_card(folder)).data.base_model == ["jane/newer"]


@pytest.mark.parametrize(
    ("hours", "told"), [(0.0304, "0.03"), (3.24, "3.2"), (9.96, "10"), (99.7, "100"), (1234.5, "1,234")]
)
def test_hours_are_told_without_an_exponent(folder: Path, hours: float, told: str) -> None:
    write_record(folder / "training_record.json", [leg(hours=hours)])
    assert f"| Time | {told} hours |" in render_card(folder)


def test_a_record_of_a_stranger_brings_no_markup_along(folder: Path) -> None:
    evil = "x | y\n\n<img src=e>\n# Z"
    data = Data(evil, 1, None)
    write_record(
        folder / "training_record.json",
        [
            leg(
                steps={evil: 1},
                versions={evil: evil},
                command=f"train\n````\n{evil}",
                data=data,
                license=evil,
            )
        ],
    )
    card = render_card(folder, CardOptions(name="a <b> [c](d) e_f"))
    before, fenced, after = card.split("\n`````\n")
    assert fenced == f"train\n````\n{evil}"
    text = before.split("\n---\n", 1)[1] + after
    assert "<img" not in text and "\n# Z" not in text
    assert r"x \| y &lt;img src=e> # Z" in text
    assert "\n# a \\<b> \\[c\\](d) e_f\n" in text


@pytest.mark.parametrize(
    ("settings", "told"), [({"degradation": "fog"}, "fog"), ({}, "not recorded")], ids=["unknown", "none"]
)
def test_a_degradation_of_another_version_is_told_by_its_name(
    folder: Path, settings: dict[str, str], told: str
) -> None:
    write_record(folder / "training_record.json", [leg(settings=settings)])
    assert f"| Degradation | {told} |" in render_card(folder)


def test_a_card_says_that_the_score_was_a_loss(folder: Path) -> None:
    evaluation(folder / "results" / "set5.json", 30.0, lpips=0.1)
    write_record(folder / "training_record.json", [leg()])
    assert "one of the losses" not in render_card(folder)
    by_lpips = leg(settings={"degradation": "rough", "lpips_weight": 1.0})
    write_record(folder / "training_record.json", [dataclasses.replace(by_lpips, steps={"pixel": 9})])
    assert "one of the losses" not in render_card(folder), "phase 1 has no such loss"
    write_record(folder / "training_record.json", [leg(), by_lpips])
    card = render_card(folder)
    assert "**LPIPS was one of the losses of the training**" in card
    assert "artificially blurred, noisy and compressed" in card


def test_a_statement_counts_for_the_legs_without_one(folder: Path) -> None:
    """What the base model's images were is not rubbed out by what the pusher says of the rest."""
    write_record(folder / "training_record.json", [leg(), leg(data=Data(None, 3, 1.5))])
    card = render_card(folder, CardOptions(data_statement="Scans of mine."))
    rows = [line for line in card.splitlines() if line.startswith("| Origin and licences |")]
    assert rows == ["| Origin and licences | Own photos, CC0 |", "| Origin and licences | Scans of mine. |"]
    assert "Training data: its origin and licences stand with each run below.\n" in card
    assert "was not recorded" not in card
    assert "with each run below where it was recorded." in render_card(folder)


def test_a_statement_beside_legs_that_all_have_one(folder: Path) -> None:
    write_record(folder / "training_record.json", [leg(), leg()])
    card = render_card(folder, CardOptions(data_statement="Scans of mine."))
    assert card.count("| Origin and licences | Own photos, CC0 |") == 2
    assert "Training data: Scans of mine." in card
    assert "Training data: Own photos, CC0" in render_card(folder)


def test_scores_stand_beside_bicubic_and_in_the_index(folder: Path) -> None:
    evaluation(folder / "results" / "a.json", 30.5678, fidelity="1.0", lpips=0.1234)
    evaluation(folder / "results" / "b.json", 29.0, fidelity="0.0", lpips=0.0678)
    evaluation(folder / "results" / "c.json", None, data="Own set")
    card = render_card(folder)
    rows = [line for line in card.splitlines() if line.startswith(("| Set5", "| Own set"))]
    assert rows == [
        "| Own set (5) | as published | bicubic | 28.42 | 0.8104 | not measured |",
        "| Own set (5) | as published | this model | infinite | 0.8765 | not measured |",
        "| Set5 (5) | as published | bicubic | 28.42 | 0.8104 | 0.1234 |",
        "| Set5 (5) | as published | this model, fidelity 1 | 30.57 | 0.8765 | 0.1234 |",
        "| Set5 (5) | as published | this model, fidelity 0 | 29.00 | 0.8765 | 0.0678 |",
    ]
    data = ModelCard(card).data
    found = [
        (r.dataset_name, r.dataset_args.get("fidelity"), r.metric_type, r.metric_value, r.metric_args)
        for r in data.eval_results or []
    ]
    assert len(found) == 1 + 3 + 3
    assert ("Set5", 1.0, "psnr", 30.5678, {"bicubic": 28.4231}) in found
    assert ("Set5", 0.0, "lpips", 0.0678, {"bicubic": 0.0678}) in found
    assert data.metrics == ["psnr", "ssim", "lpips"]


def test_times_pictures_and_both_ends(folder: Path) -> None:
    (folder / "results").mkdir()
    times = {"seconds_per_output_megapixel": [{"machine": "GPU X", "precision": "bfloat16", "seconds": 0.01}]}
    (folder / "results" / "speed.json").write_text(json.dumps(times))
    (folder / "before_after.png").write_bytes(b"")
    save_weights(SRGenerator(features=3, blocks=1), folder / "fidelity.safetensors")
    card = render_card(folder, CardOptions(repo_id="jane/sharp", datasets=("jane/photos",)))
    for text in (
        "| GPU X | bfloat16 | 0.01 |", "](before_after.png)", "`fidelity.safetensors`", "# sharp\n",
        'SRGenerator.from_pretrained("jane/sharp", fidelity=0.25)', "--model jane/sharp", "verify",
    ):  # fmt: skip
        assert (text in card) == (text != "verify"), text
    assert ModelCard(card).data.datasets == ["jane/photos"]


def test_a_card_edited_by_hand_is_noticed(folder: Path) -> None:
    path = write_card(folder)
    text = path.read_text()
    assert (
        is_rendered(text) and not is_rendered(text.replace("Limits", "Limit")) and not is_rendered("# Mine\n")
    )
    write_card(folder)  # one that was rendered is replaced
    path.write_text(text + "Mine.\n")
    with pytest.raises(FileExistsError, match="README.md must be as it was rendered, got one edited by hand"):
        write_card(folder)
    assert write_card(folder, keep_edited=True).read_text() == text + "Mine.\n"
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results/x.json", "{", "x.json must be JSON"),
        ("results/x.json", "[" * 200_000, "x.json must be JSON, got: maximum recursion"),
        ("results/x.json", "[]", "must hold a JSON object, got list"),
        ("results/x.json", '{"a": 1}', "must hold scores of sr-hub evaluate --json .* got a"),
        ("results/x.json", '{"mean": {}}', "must hold scores of sr-hub evaluate --json, lacks 'sr'"),
        ("training_record.json", "{", "training_record.json must be JSON"),
        ("training_record.json", "[]", "must hold an object with a list legs, got list"),
        ("training_record.json", '{"legs": [{"seed": 1}]}', "a leg must have the fields of a training run"),
        ("model.safetensors", "junk", "model.safetensors must be a safetensors file"),
    ],
)
def test_broken_facts_are_named(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        render_card(folder)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold config.json"):
        render_card(tmp_path)


def test_a_claim_of_a_file(tmp_path: Path) -> None:
    evaluation(tmp_path / "e.json", 30.0, fidelity="0.5")
    claim = read_evaluation(tmp_path / "e.json")
    assert isinstance(claim, Claim) and claim.fidelity == 0.5 and claim.images == 5
    assert claim.sr == {"psnr": 30.0, "ssim": 0.87654, "lpips": None}
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(ValueError, match="must hold scores"):
        read_evaluation(tmp_path / "e.json")


def scored_card(**changes: Any) -> str:
    """A card with one score; ``changes`` replace the fields of its entry, dots for inner ones."""
    entry: dict[str, Any] = {
        "task": {"type": "image-to-image"},
        "dataset": {
            "type": "set5", "name": "Set5",
            "args": {"images": 5, "lr": "as published", "precision": "float32"},
        },
        "metrics": [{"type": "psnr", "value": 30.0, "args": {"bicubic": 28.0}}],
    }  # fmt: skip
    for place, value in changes.items():
        inner: Any = entry
        *before, last = place.split("__")
        for step in before:
            inner = inner[int(step) if step.isdigit() else step]
        inner[last] = value
    index = [{"name": "thing", "results": [entry]}]
    return f"---\nlibrary_name: sr_hub\nmodel-index: {json.dumps(index)}\n---\n"


def test_scores_of_other_metrics_are_left_out() -> None:
    assert len(claims_in_card(scored_card())) == 1
    for other in ("wer", 5, None, [1], {"a": 1}):
        assert claims_in_card(scored_card(metrics__0__type=other, dataset__args=None)) == []


def test_a_second_value_does_not_hide_the_first() -> None:
    twice = [{"type": "psnr", "value": 30.0, "args": {"bicubic": 28.0}}]
    assert len(claims_in_card(scored_card(metrics=twice + twice))) == 1
    for second in ({"value": 39.9}, {"args": {"bicubic": 20.0}}):
        with pytest.raises(ValueError, match=r"the score psnr on Set5 must have one value, (30|28)\.0, got"):
            claims_in_card(scored_card(metrics=[*twice, twice[0] | second]))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("dataset__args", None, "a mapping as its dataset args, got None"),
        ("dataset__args", [1], r"a mapping as its dataset args, got \[1\]"),
        ("metrics__0__args", [1], r"a mapping as its metric args, got \[1\]"),
        ("dataset__name", 5, "the name of a folder as its dataset, got 5"),
        ("dataset__name", "../secret", r"the name of a folder as its dataset, got '\.\./secret'"),
        ("dataset__name", "/etc", "the name of a folder as its dataset, got '/etc'"),
        ("dataset__name", "..", r"the name of a folder as its dataset, got '\.\.'"),
        ("dataset__args__images", "5", "a whole number as its images, got '5'"),
        ("dataset__args__lr", 5, "'as published' or '<degradation>, seed <number>' as its lr, got 5"),
        ("dataset__args__lr", "photo, seed x", ".* as its lr, got 'photo, seed x'"),
        ("dataset__args__lr", "photo, seed 9999999999999", ".* as its lr, got 'photo, seed 9999999999999'"),
        ("dataset__args__lr", "blur, seed 1", ".* as its lr, got 'blur, seed 1'"),
        ("dataset__args__precision", ["float32"], r"float32 or bfloat16 as its precision, got \['float32'\]"),
        ("dataset__args__precision", "int8", "float32 or bfloat16 as its precision, got 'int8'"),
        ("dataset__args__fidelity", "1", r"a number in \[0, 1\] as its fidelity, got '1'"),
        ("dataset__args__fidelity", 7, r"a number in \[0, 1\] as its fidelity, got 7"),
        ("metrics__0__value", "much", "a number, got 'much'"),
        ("metrics__0__value", None, "a number, got None"),
        ("metrics__0__args", {"bicubic": [1]}, r"a number, got \[1\]"),
    ],
)
def test_an_odd_score_of_a_card_is_named(place: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"the score psnr on .* must have {message}"):
        claims_in_card(scored_card(**{place: value}))


@pytest.mark.parametrize(
    "metadata",
    [
        "tags: 5",
        "model-index: 5",
        "model-index: [5]",
        "model-index: [{name: a, results: [{task: {type: b}, dataset: {type: c, name: d}, source: 5}]}]",
        "a: " + "[" * 5000,
        "license: [",
    ],
    ids=lambda text: text[:20],
)
def test_odd_metadata_of_a_card_is_told_in_a_sentence(metadata: str) -> None:
    with pytest.raises(ValueError, match="a card must begin with metadata between lines ---, got: "):
        claims_in_card(f"---\n{metadata}\n---\n")


def test_the_command_tells_the_newest_run_and_those_told_none(folder: Path) -> None:
    record = folder / "training_record.json"
    write_record(record, [leg(), leg(data=Data(None, 3, 1.5)), leg(data=Data("Wrong.", 3, 1.5))])
    assert cli.main(["card", str(folder), "--data-statement", "Scans of mine."]) == 0
    said = [told.data.statement for told in read_record(record)]
    assert said == ["Own photos, CC0", "Scans of mine.", "Scans of mine."]


def test_the_command_writes_record_times_and_card(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that were trained before records were written: the card is made from their folders."""
    from PIL import Image

    from sr_hub.config import TrainConfig

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (1000, 500)).save(tmp_path / "photos" / "a.png")
    run = tmp_path / "photos" / "old_run"
    (run / "sheets").mkdir(parents=True)
    (tmp_path / "photos" / "text.png").write_text("no picture")
    (tmp_path / "photos" / "cut.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes()[:-200])
    Image.new("RGB", (50, 50)).save(tmp_path / "photos" / "small.png")
    Image.new("RGB", (70, 70)).save(run / "sheets" / "pixel-000005.png")  # not trained on
    TrainConfig(data=str(tmp_path / "photos"), threads=3).save(run / "train_config.json")
    line = {"phase": "pixel", "step": 5, "seconds": 7200.0, "psnr_y": 30.0, "psnr_y_bicubic": 28.0}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    arguments = ["card", folder, "--run", run, "--license", "mit", "--data-statement", "Mine.", "--time"]
    assert cli.main([*map(str, arguments), "--name", "Old"]) == 0
    card = (folder / "README.md").read_text()
    assert str(folder / "README.md") in capsys.readouterr().out
    for text in (
        "# Old",
        "1 images, 0.5 megapixels",
        "2 hours",
        "3 threads",
        "Training data: Mine.",
        "| mit |",
    ):
        assert text in card, text
    times = json.loads((folder / "results" / "speed.json").read_text())["seconds_per_output_megapixel"]
    assert times[0]["seconds"] > 0 and f"| {times[0]['seconds']} |" in card
    assert str(tmp_path) not in card + (folder / "training_record.json").read_text()
    assert cli.main(["card", str(folder)]) == 0  # statement and licence are in the record now
    assert "Training data: Mine." in (folder / "README.md").read_text()
    assert cli.main(["card", str(tmp_path / "absent")]) == 2
    assert "no model folder at" in capsys.readouterr().err
