"""``sr-hub evaluate`` from arguments to files."""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sr_hub
from sr_hub import cli, cli_evaluate, measuring
from sr_hub.degradations import bicubic, photo
from sr_hub.ensemble import DihedralEnsemble
from sr_hub.evaluation import evaluate, find_pairs, load_samples
from sr_hub.generator import DEFAULT_FIDELITY, SRGenerator, save_weights
from sr_hub.pretrained import BUNDLED, FIDELITY_FILE, bundled_models
from sr_hub.provenance import hash_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    SRGenerator(scale=2, features=8, blocks=2).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((60, 48), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    cli_evaluate.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["evaluate", *(str(word) for word in words)])
    arguments.run(arguments)


def test_writes_the_scores_of_the_evaluator(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = ["--json", tmp_path / "s.json", "--markdown", tmp_path / "s.md", "--worst", tmp_path / "w.png"]
    run(model, "--data", data, *outputs)
    expected = evaluate(
        SRGenerator.from_pretrained(model), load_samples(find_pairs(data, 2), 2, degradation=bicubic), 2
    )
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["mean"]["sr"]["psnr_y"] == pytest.approx(expected.sr.psnr_y, abs=1e-3)
    assert content["mean"]["bicubic"]["psnr_y"] == pytest.approx(expected.bicubic.psnr_y, abs=1e-9)
    assert [image["name"] for image in content["images"]] == ["0.png", "1.png", "2.png", "3.png"]
    assert content["settings"]["lr"] == "bicubic, seed 0"
    assert content["settings"]["precision"] == "float32"
    assert str(data.parent) not in json.dumps(content["settings"]["data"])
    assert capsys.readouterr().out == (tmp_path / "s.md").read_text()
    with Image.open(tmp_path / "w.png") as sheet:
        assert sheet.size == (3 * 60 + 8, 14 + 3 * (14 + 48 + 4))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_utf8_cost_no_scores(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    shutil.copy(data / "0.png", tmp_path / "data" / os.fsdecode(b"b\xff.png"))
    run(model, "--data", tmp_path / "data", "--json", tmp_path / "s.json", "--markdown", tmp_path / "s.md")
    assert json.loads((tmp_path / "s.json").read_text())["mean"]["sr"]["psnr_y"] > 0
    assert "b\\udcff.png" in (tmp_path / "s.md").read_text()
    assert "b\\udcff.png" in capsys.readouterr().out


def test_tiles_do_not_change_scores(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def scores() -> list[float]:
        run(model, "--data", data, "--json", tmp_path / "s.json")
        return [image["sr"]["psnr_y"] for image in json.loads((tmp_path / "s.json").read_text())["images"]]

    whole = scores()
    monkeypatch.setattr(measuring, "_TILE_SIZE", 3)
    assert scores() == pytest.approx(whole, abs=1e-3)


def test_degradation_and_seed_make_the_lr_images(model: Path, data: Path, tmp_path: Path) -> None:
    run(model, "--data", data, "--degradation", "photo", "--seed", 5, "--json", tmp_path / "s.json")
    samples = load_samples(find_pairs(data, 2), 2, degradation=photo, seed=5)
    expected = evaluate(SRGenerator.from_pretrained(model), samples, 2)
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["mean"]["bicubic"]["psnr_y"] == pytest.approx(expected.bicubic.psnr_y, abs=1e-9)
    assert content["settings"]["lr"] == "photo, seed 5"


def test_lr_folder_is_used_unless_a_degradation_is_named(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "HR").mkdir()
    (tmp_path / "LRx2").mkdir()
    with Image.open(data / "0.png") as hr:
        hr.save(tmp_path / "HR" / "0.png")
        hr.resize((30, 24), Image.Resampling.NEAREST).save(tmp_path / "LRx2" / "0.png")

    def content(*words: str) -> dict:
        run(model, "--data", tmp_path, "--json", tmp_path / "s.json", *words)
        return json.loads((tmp_path / "s.json").read_text())

    published, made = content(), content("--degradation", "bicubic")
    assert (published["settings"]["lr"], made["settings"]["lr"]) == ("as published", "bicubic, seed 0")
    assert published["mean"]["bicubic"]["psnr_y"] < made["mean"]["bicubic"]["psnr_y"]


def test_json_says_what_was_measured_and_by_what(model: Path, data: Path, tmp_path: Path) -> None:
    run(model, "--data", data, "--precision", "bf16", "--json", tmp_path / "s.json")
    settings = json.loads((tmp_path / "s.json").read_text())["settings"]
    assert settings["weights"] == hash_weights(SRGenerator.from_pretrained(model))  # of the file, in float32
    assert settings["program"] == f"sr_hub {sr_hub.__version__}"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", settings["date"])


def test_the_ensemble_is_scored_named_and_kept_out_of_cards(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model, "--data", data, "--ensemble", "--json", tmp_path / "s.json")
    generator = DihedralEnsemble(SRGenerator.from_pretrained(model))
    expected = evaluate(generator, load_samples(find_pairs(data, 2), 2, degradation=bicubic), 2)
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["mean"]["sr"]["psnr_y"] == pytest.approx(expected.sr.psnr_y, abs=1e-3)
    assert content["settings"]["ensemble"] == "flips and turns"
    assert content["settings"]["weights"] == hash_weights(SRGenerator.from_pretrained(model))
    run(model, "--data", data, "--json", tmp_path / "alone.json")
    alone = json.loads((tmp_path / "alone.json").read_text())
    assert "ensemble" not in alone["settings"]
    assert abs(alone["mean"]["sr"]["psnr_y"] - expected.sr.psnr_y) > 0.002
    folder = scored(shutil.copytree(model, tmp_path / "model"), data, "--ensemble")
    assert cli.main(["card", str(folder)]) == 2
    assert "must hold scores of the model itself, got those of --ensemble" in capsys.readouterr().err


def scored(folder: Path, data: Path, *words: object) -> Path:
    """A model's folder with scores of it in ``results/``."""
    (folder / "results").mkdir(exist_ok=True)
    run(folder, "--data", data, *words, "--json", folder / "results" / "s.json")
    return folder


def test_scores_of_other_weights_come_into_no_card(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scored(shutil.copytree(model, tmp_path / "model"), data)
    assert cli.main(["card", str(folder)]) == 0
    card = (folder / "README.md").read_text()
    torch.manual_seed(1)
    save_weights(SRGenerator(scale=2, features=8, blocks=2), folder / "model.safetensors")
    push = ["push", folder, "me/it", "--license", "mit", "--data-statement", "Mine."]
    for words in (["card", folder], push):
        assert cli.main([str(word) for word in words]) == 2
        assert "s.json must hold scores of the weights in" in capsys.readouterr().err
    assert (folder / "README.md").read_text() == card
    scored(folder, data)
    assert cli.main(["card", str(folder)]) == 0


def test_scores_of_both_ends_are_told_apart(data: Path, tmp_path: Path) -> None:
    ends = [SRGenerator(scale=2, features=8, blocks=2) for _ in range(2)]
    ends[0].save_pretrained(tmp_path, fidelity=ends[1])
    for fidelity in (0, 0.25, 1):
        measuring.check_scores(scored(tmp_path, data, "--fidelity", fidelity))
    scores = json.loads((tmp_path / "results" / "s.json").read_text())
    scores["settings"]["fidelity"] = "0.0"
    (tmp_path / "results" / "s.json").write_text(json.dumps(scores))
    with pytest.raises(ValueError, match="s.json must hold scores of the weights in"):
        measuring.check_scores(tmp_path)
    (tmp_path / FIDELITY_FILE).unlink()  # of a model with one end, none has a fidelity
    with pytest.raises(ValueError, match="s.json must hold scores of the weights in"):
        measuring.check_scores(tmp_path)


@pytest.mark.parametrize("name", bundled_models())
def test_scores_of_the_bundled_models_are_of_their_weights(name: str) -> None:
    measuring.check_scores(BUNDLED / name)
    assert len(list((BUNDLED / name / "results").glob("*-fidelity-[01].json"))) == 10


def test_bf16_is_close_to_fp32_and_named(model: Path, data: Path, tmp_path: Path) -> None:
    content = {}
    for precision in ("fp32", "bf16"):
        run(model, "--data", data, "--precision", precision, "--json", tmp_path / "s.json")
        content[precision] = json.loads((tmp_path / "s.json").read_text())
    assert content["bf16"]["settings"]["precision"] == "bfloat16"
    values = [content[precision]["mean"]["sr"]["psnr_y"] for precision in ("fp32", "bf16")]
    assert values[0] == pytest.approx(values[1], abs=0.2) and values[0] != values[1]


@pytest.mark.parametrize(("words", "fidelity"), [([], DEFAULT_FIDELITY), (["--fidelity", "0.75"], 0.75)])
def test_fidelity_is_applied_and_named(
    model: Path, data: Path, tmp_path: Path, words: list[str], fidelity: float
) -> None:
    shutil.copytree(model, tmp_path / "two")
    torch.manual_seed(1)
    save_weights(SRGenerator(scale=2, features=8, blocks=2), tmp_path / "two" / FIDELITY_FILE)
    run(tmp_path / "two", "--data", data, "--json", tmp_path / "s.json", *words)
    content = json.loads((tmp_path / "s.json").read_text())
    generator = SRGenerator.from_pretrained(tmp_path / "two", fidelity=fidelity)
    expected = evaluate(generator, load_samples(find_pairs(data, 2), 2, degradation=bicubic), 2)
    assert content["mean"]["sr"]["psnr_y"] == pytest.approx(expected.sr.psnr_y, abs=1e-3)
    assert content["settings"]["fidelity"] == str(fidelity)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--json", "nowhere/s.json"], FileNotFoundError, "no folder nowhere to write s.json into"),
        (["--json", "."], IsADirectoryError, r"expected a file to write, got the folder \."),
        (["--worst", "w.jpg"], ValueError, r"must end in \.png, got w\.jpg"),
        (["--seed", "-1"], ValueError, "seed must not be negative, got -1"),
        (["--lpips", "nowhere.safetensors"], FileNotFoundError, "no LPIPS weights file at nowhere"),
    ],
)
def test_rejects_bad_arguments(
    model: Path, data: Path, words: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(model, "--data", data, *words)
