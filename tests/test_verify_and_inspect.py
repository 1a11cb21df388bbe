"""``sr-hub verify`` and ``sr-hub inspect`` on a model that was evaluated, carded and pushed for real."""

import hashlib
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_hub import SRGenerator, cli
from sr_hub.claims import Claim, claims_in_card
from sr_hub.cli_inspect import describe_model
from sr_hub.cli_verify import _Row
from sr_hub.generator import save_weights
from sr_hub.hub_files import HubOptions
from sr_hub.loopback_hub import LoopbackHub
from sr_hub.model_card import CardOptions, write_card
from sr_hub.publishing import PushOptions, push_folder
from sr_hub.training_record import Data, Leg, write_record

Outcome = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    capsys.readouterr()
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two image sets: one of HR images alone, one with LR images beside them."""
    folder = tmp_path_factory.mktemp("sets")
    for name, place in (("Plain", ""), ("Paired", "HR")):
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 256, (8, 10, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC)
            for inside, size in ((place, (64, 48)), ("LRx4", (16, 12))):
                if inside == "LRx4" and name == "Plain":
                    continue
                (folder / name / inside).mkdir(parents=True, exist_ok=True)
                image.resize(size).save(folder / name / inside / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def model(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family with scores on both sets, one with a random degradation, and the card of it all."""
    folder = tmp_path_factory.mktemp("models") / "family"
    torch.manual_seed(0)
    generators = [SRGenerator(features=8, blocks=1) for _ in range(2)]
    generators[0].save_pretrained(folder, fidelity=generators[1])
    (folder / "results").mkdir()
    for number, words in enumerate(
        (["--data", sets / "Paired", "--fidelity", 1], ["--data", sets / "Plain", "--degradation", "photo"])
    ):
        results = folder / "results" / f"{number}.json"
        assert cli.main([str(w) for w in ["evaluate", folder, *words, "--seed", 3, "--json", results]]) == 0
    write_record(
        folder / "training_record.json",
        [Leg("python train.py", {"degradation": "photo"}, 0, {"pixel": 1}, None, None, {}, Data("Mine."),
             "mit", None, None)],
    )  # fmt: skip
    write_card(folder)
    return folder


def test_the_card_gives_back_what_was_measured(model: Path) -> None:
    claims = claims_in_card((model / "README.md").read_text())
    assert [(c.dataset, c.images, c.lr, c.fidelity, c.precision) for c in claims] == [
        ("Paired", 2, "as published", 1.0, "float32"),
        ("Plain", 2, "photo, seed 3", 0.25, "float32"),
    ]
    for number, claim in enumerate(claims):
        mean = json.loads((model / "results" / f"{number}.json").read_text())["mean"]
        assert claim.sr == {
            "psnr": pytest.approx(mean["sr"]["psnr_y"], abs=1e-4),
            "ssim": pytest.approx(mean["sr"]["ssim_y"], abs=1e-4),
            "lpips": None,
        }
        assert claim.bicubic["psnr"] == pytest.approx(mean["bicubic"]["psnr_y"], abs=1e-4)
    assert isinstance(claims[0], Claim)


def test_true_claims_hold(model: Path, sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "verify", model, "--data", sets)
    assert code == 0
    assert "8 scores hold, 0 differ" in out and "DIFFERS" not in out  # 2 sets, 2 scores, ours and bicubic's
    assert "Plain, photo, seed 3, fidelity 0.25" in out and "Paired, as published, bicubic" in out


def test_a_card_edited_by_hand_is_said_to_be(
    model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(model, tmp_path / "family")
    assert "edited by hand" not in run(capsys, "verify", folder, "--data", sets)[1]
    (folder / "README.md").write_text((folder / "README.md").read_text() + "40 dB on Set5.\n")
    code, out, _ = run(capsys, "verify", folder, "--data", sets)
    assert code == 0 and "the card was edited by hand" in out and "8 scores hold" in out


def test_bicubic_is_told_once_for_a_set(
    model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "family"
    shutil.copytree(model, folder)
    shutil.rmtree(folder / "results")
    (folder / "results").mkdir()
    for fidelity in (0, 1):
        words = ["evaluate", folder, "--data", sets / "Paired", "--fidelity", fidelity]
        assert run(capsys, *words, "--json", folder / "results" / f"{fidelity}.json")[0] == 0
    write_card(folder)
    code, out, _ = run(capsys, "verify", folder, "--data", sets)
    assert code == 0 and out.count("bicubic") == 2 and "6 scores hold" in out


def test_a_pulled_model_is_verified_on_the_sets_that_are_here(
    model: Path, sets: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    push_folder(model, "me/family", PushOptions(token=hub.token))
    code, out, _ = run(capsys, "verify", "me/family", "--data", sets / "Plain", "--token", hub.token)
    assert code == 0
    assert "4 scores hold, 0 differ" in out and "not checked, as" in out and "Paired" in out


def test_other_weights_than_claimed_are_found_out(
    model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "family").mkdir()
    for name in ("config.json", "README.md"):
        (tmp_path / "family" / name).write_bytes((model / name).read_bytes())
    torch.manual_seed(9)
    for name in ("model", "fidelity"):
        save_weights(SRGenerator(features=8, blocks=1), tmp_path / "family" / f"{name}.safetensors")
    code, out, _ = run(capsys, "verify", tmp_path / "family", "--data", sets)
    assert code == 1
    wrong = [line for line in out.splitlines() if line.endswith("DIFFERS")]
    assert wrong and all("bicubic" not in line for line in wrong) and f"{len(wrong)} differ" in out


def test_a_claim_just_beyond_the_tolerance(
    model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = json.loads((model / "results" / "0.json").read_text())
    for beyond, code in ((0.019, 0), (0.021, 1)):
        folder = tmp_path / str(beyond)
        (folder / "results").mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "fidelity.safetensors"):
            (folder / name).write_bytes((model / name).read_bytes())
        claimed = {**results["mean"]["sr"], "psnr_y": results["mean"]["sr"]["psnr_y"] + beyond}
        changed = {**results, "mean": {**results["mean"], "sr": claimed}}
        (folder / "results" / "0.json").write_text(json.dumps(changed))
        write_card(folder)
        assert run(capsys, "verify", folder, "--data", sets)[0] == code


def test_verify_says_what_is_missing(
    model: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: object) -> str:
        code, _, err = run(capsys, "verify", *words)
        assert code == 2 and err.count("\n") == 1
        return err

    assert "no folder of image sets at" in error(model, "--data", tmp_path / "absent")
    assert "must hold one of the card's image sets Paired, Plain, got none" in error(
        model, "--data", tmp_path
    )
    bare = tmp_path / "bare"
    SRGenerator(features=8, blocks=1).save_pretrained(bare)
    assert "must claim scores in its metadata, got none" in error(bare, "--data", sets)
    (bare / "README.md").unlink()
    assert "must hold README.md, the card, which is not there" in error(bare, "--data", sets)
    (bare / "README.md").write_text("---\nlicense: [\n---\n")
    assert "a card must begin with metadata between lines ---" in error(bare, "--data", sets)
    claims = (model / "README.md").read_text()
    (bare / "README.md").write_text(claims.replace("lr: as published", "lr: 5"))
    assert "the score psnr on Paired must have 'as published' or " in error(bare, "--data", sets)
    (bare / "README.md").write_text(re.sub("type: (psnr|ssim)", "type: wer", claims))
    assert "must claim scores in its metadata, got none" in error(bare, "--data", sets)
    (bare / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert "README.md must be UTF-8 text, got: 'utf-8' codec" in error(bare, "--data", sets)
    only = tmp_path / "sets" / "Paired" / "HR"
    only.mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(only / "0.png")
    assert "LR images must be as in the card, as published, got bicubic, seed 0" in error(
        model, "--data", tmp_path / "sets"
    )


@pytest.mark.parametrize(
    ("claimed", "measured", "differs"),
    [(30.0, 30.01, False), (30.0, 30.03, True), (math.inf, math.inf, False), (math.inf, 90.0, True)],
)
def test_when_a_score_differs(claimed: float, measured: float, differs: bool) -> None:
    assert _Row("a flat picture, hit exactly", "psnr", claimed, measured).differs == differs


def test_inspect_tells_what_a_model_is(
    model: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    push_folder(model, "me/family", PushOptions(token=hub.token))
    for words in (["inspect", model], ["inspect", "me/family", "--token", hub.token]):
        code, out, _ = run(capsys, *words, "--json")
        facts = json.loads(out)
        assert code == 0
        assert (facts["scale"], facts["features"], facts["blocks"]) == (4, 8, 1)
        assert facts["parameters"] == sum(p.numel() for p in SRGenerator(features=8, blocks=1).parameters())
        assert facts["license"] == "mit" and facts["training_data"] == "Mine."
        assert facts["trained_1"] == "python train.py" and facts["ends"].startswith("two")
        digest = hashlib.sha256((model / "fidelity.safetensors").read_bytes()).hexdigest()
        assert digest in facts["fidelity.safetensors"] and facts["fidelity.safetensors"].startswith("F32")
    assert "parameters" in run(capsys, "inspect", model)[1]


def test_inspect_offline_tells_what_the_cache_holds(model: Path, hub: LoopbackHub, tmp_path: Path) -> None:
    push_folder(model, "me/family", PushOptions(token=hub.token))
    cached = HubOptions(token=hub.token, cache_dir=tmp_path / "cache")
    SRGenerator.from_pretrained("me/family", token=hub.token, cache_dir=tmp_path / "cache")
    facts = describe_model("me/family", replace(cached, local_files_only=True))
    assert facts["features"] == 8 and facts["license"] is None
    for file in ("training_record.json", "README.md"):
        assert facts[file].startswith(f"{file} of me/family is not in the cache")
    assert describe_model("me/family", cached)["license"] == "mit"


def test_inspect_of_lone_files_and_broken_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SRGenerator(features=8, blocks=1).save_pretrained(tmp_path / "model")
    write_card(tmp_path / "model", CardOptions(license="cc0-1.0"))
    file = (tmp_path / "model" / "model.safetensors").rename(tmp_path / "lone.safetensors")
    code, out, _ = run(capsys, "inspect", file)
    assert code == 0 and "license" in out and "not stated" in out and "8 channels" in out
    file.rename(tmp_path / "model" / "model.safetensors")
    assert "cc0-1.0" in run(capsys, "inspect", tmp_path / "model")[1]
    (tmp_path / "broken.safetensors").write_bytes(b"junk")
    code, _, err = run(capsys, "inspect", tmp_path / "broken.safetensors")
    assert code == 2 and "must be a whole safetensors file" in err
