"""Runs of the trainer as a user starts them: whole, killed, resumed, by two processes, broken."""

import hashlib
import json
import math
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from sr_hub import SRGenerator, training
from sr_hub.config import TrainConfig
from sr_hub.journal import NonFiniteLossError
from sr_hub.loopback_hub import LoopbackHub
from sr_hub.losses import VGG19Features
from sr_hub.model_card import CardOptions
from sr_hub.publishing import PushOptions, check_before_training, push_folder
from sr_hub.run_folder import sheets
from sr_hub.training import learning_rate_factor, train
from sr_hub.training_record import read_record
from sr_hub.whole_files import sole_user

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos (smooth noise) and the first convolutions of a VGG19 with random weights."""
    folder = tmp_path_factory.mktemp("material")
    random = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for index in range(4):
        small = Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8))
        small.resize((128, 128), Image.Resampling.BICUBIC).save(folder / "photos" / f"{index}.png")
    torch.manual_seed(0)
    network = VGG19Features(["conv1_2"])
    tensors = {}
    for number, convolution in zip((0, 2), network.convolutions, strict=True):
        tensors[f"features.{number}.weight"] = convolution.weight
        tensors[f"features.{number}.bias"] = convolution.bias
    save_file(tensors, folder / "vgg.safetensors")
    return folder


def settings(material: Path, out: Path) -> TrainConfig:
    return TrainConfig(
        data=str(material / "photos"), out=str(out), vgg=str(material / "vgg.safetensors"),
        features=8, blocks=1, pixel_steps=12, adversarial_steps=8, batch_size=2, patch_size=12,
        adversarial_batch_size=2, adversarial_patch_size=12, content_layers="conv1_2:1",
        discriminator_features=4, expansion=1, warmup_steps=2, checkpoint_every=3, log_every=4,
        validate_every=0, threads=1, precision="fp32", device="cpu",
    )  # fmt: skip


def flags(config: TrainConfig) -> list[str]:
    arguments = []
    for name, value in vars(config).items():
        default = TrainConfig.__dataclass_fields__[name].default
        if value != default:
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                arguments += [flag if value else flag.replace("--", "--no-")]
            else:
                arguments += [flag, str(value)]
    return arguments


def command(config: TrainConfig) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *flags(config)]


@pytest.mark.parametrize("mirror", [True, False])
def test_crops_are_mirrored_unless_told_not_to(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: bool
) -> None:
    turns = []
    batch = training.Crops.batch

    def recorded(crops: training.Crops, keys: list[int], turn: int, *rest: Any) -> Any:
        turns.append(turn)
        return batch(crops, keys, turn, *rest)

    monkeypatch.setattr(training.Crops, "batch", recorded)
    train(replace(settings(material, tmp_path / "run"), mirror=mirror, adversarial_steps=0))
    assert len(turns) == 12 and len({turn // 8 for turn in turns}) > 6  # shifted all the same
    assert any(turn % 8 for turn in turns) == mirror


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors") | {
        f"fidelity.{name}": value
        for name, value in load_file(folder / "model" / "fidelity.safetensors").items()
    }


def assert_equal_weights(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    assert train(settings(material, out)) == out / "model"
    return out


def test_a_run_leaves_all_that_it_promises(whole: Path) -> None:
    assert {"train_config.json", "metrics.jsonl", "curves.png", "model", "sheets"} <= set(os.listdir(whole))
    assert {"config.json", "model.safetensors", "fidelity.safetensors"} <= set(os.listdir(whole / "model"))
    Image.open(whole / "curves.png").verify()
    assert sorted(os.listdir(whole / "sheets")) == ["adversarial-000008.png", "pixel-000012.png"]
    generator = SRGenerator.from_pretrained(whole / "model", fidelity=1.0)
    assert generator(torch.rand(1, 3, 8, 8)).shape == (1, 3, 32, 32)
    found = lines(whole)
    assert [line["step"] for line in found if "pixel_loss" in line] == [3, 4, 6, 8, 9, 12, 3, 4, 6, 8]
    assert {"psnr_y", "psnr_y_bicubic"} <= set(found[-1])
    assert {"probability_hr", "probability_sr", "content_loss", "adversarial_loss"} <= set(found[-2])
    assert not list(whole.rglob("*.tmp")) + list(whole.rglob("*.bin")) + list(whole.rglob("*.pt"))


def test_no_file_of_a_checkpoint_is_large(whole: Path) -> None:
    assert max(path.stat().st_size for path in whole.rglob("*.safetensors")) < 16 * 2**20


def test_repeating_a_finished_run_changes_nothing(whole: Path, material: Path) -> None:
    before = weights(whole)
    train(settings(material, whole))
    after = weights(whole)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_repetition_tells_of_the_training_and_not_of_itself(
    whole: Path, material: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    photos = shutil.copytree(material / "photos", tmp_path / "more")
    shutil.copyfile(photos / "0.png", photos / "another.png")
    before = read_record(run / "model" / "training_record.json")[-1]
    shutil.rmtree(run / "sheets")  # which are there to look at
    train(replace(settings(material, run), data=str(photos), license="mit", data_statement="Mine."))
    after = read_record(run / "model" / "training_record.json")[-1]
    assert after == replace(before, license="mit", data=replace(before.data, statement="Mine."))
    assert after.data.images == 4 and "4 images" in (run / "model" / "README.md").read_text()


@pytest.mark.parametrize("moment", ["pixel-3", "pixel-9", "adversarial-6"])
def test_killed_and_started_again_it_ends_bit_equal(
    material: Path, tmp_path: Path, whole: Path, moment: str
) -> None:
    """SIGKILL right after a checkpoint appears, so in the middle of the steps that follow it."""
    config = settings(material, tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command(config), stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 120
        while not (tmp_path / f"checkpoint-{moment}").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "model").exists()
    assert train(config) is not None
    assert_equal_weights(tmp_path, whole)
    clock = {"seconds"}
    strip = [{key: line[key] for key in line.keys() - clock} for line in lines(tmp_path)]
    assert strip == [{key: line[key] for key in line.keys() - clock} for line in lines(whole)]


def test_a_time_limit_stops_cleanly_and_the_same_call_goes_on(
    material: Path, tmp_path: Path, whole: Path
) -> None:
    config = settings(material, tmp_path)
    assert train(replace(config, max_minutes=1e-6)) is None  # after its first step
    assert json.loads((tmp_path / "checkpoint.json").read_text())["done"]["pixel"] == 1
    assert train(config) is not None
    assert_equal_weights(tmp_path, whole)


def test_a_budget_ends_each_phase_with_its_learning_rate_brought_down(material: Path, tmp_path: Path) -> None:
    """Stopped half-way, the clock of the phase goes on with the same call; a finished phase stays so."""
    settled = replace(settings(material, tmp_path), pixel_steps=10**6, adversarial_steps=10**6, log_every=1)
    config = replace(settled, budget_minutes=0.04)
    assert train(replace(config, max_minutes=0.02)) is None
    spent = json.loads((tmp_path / "checkpoint.json").read_text())["spent"]["pixel"]
    assert 0 < spent < 2.4
    assert train(config) == tmp_path / "model"
    spent = json.loads((tmp_path / "checkpoint.json").read_text())["spent"]
    assert 2.4 <= spent["pixel"] < 5 and 2.4 <= spent["adversarial"] < 5
    for phase in ("pixel", "adversarial"):
        rates = [line["rate"] for line in lines(tmp_path) if line["phase"] == phase and "rate" in line]
        assert max(rates) > 0.9 and rates[-1] < 0.1
    before = weights(tmp_path)
    assert train(config) == tmp_path / "model"
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path).items())


def test_killed_after_the_last_checkpoint_of_a_budget_it_takes_no_step_more(
    material: Path, tmp_path: Path
) -> None:
    config = replace(
        settings(material, tmp_path), pixel_steps=10**6, adversarial_steps=0, budget_minutes=0.005
    )
    assert train(config) is not None
    before = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "pixel.safetensors").unlink()
    assert train(config) is not None
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_signal_stops_with_a_checkpoint(material: Path, tmp_path: Path) -> None:
    config = replace(settings(material, tmp_path), pixel_steps=100_000, checkpoint_every=100_000)
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "the same command goes on" in errors
    assert (tmp_path / "checkpoint.json").exists()


def test_two_processes_give_the_losses_of_one(material: Path, tmp_path: Path) -> None:
    """torchrun with gloo: each process takes half of the batch."""
    config = replace(settings(material, tmp_path / "one"), log_every=1)
    train(config)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = replace(config, out=str(tmp_path / "two"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*torchrun, *command(two)[1:]], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-3000:]
    one_lines, two_lines = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert len(one_lines) == len(two_lines)
    for a, b in zip(one_lines, two_lines, strict=True):
        assert a["phase"] == b["phase"]
        for key in a.keys() - {"seconds", "phase"}:
            assert a[key] == pytest.approx(b[key], rel=2e-3, abs=1e-5), (key, a, b)


def test_fine_tuning_starts_from_weights_and_keeps_them_as_the_other_end(
    material: Path, tmp_path: Path, whole: Path
) -> None:
    config = replace(
        settings(material, tmp_path), init=str(whole / "model"), init_fidelity=1.0, pixel_steps=0,
        adversarial_steps=1,
    )  # fmt: skip
    train(config)
    start = load_file(whole / "model" / "fidelity.safetensors")
    kept = load_file(tmp_path / "model" / "fidelity.safetensors")
    assert all(torch.equal(start[name], kept[name]) for name in start)
    result = load_file(tmp_path / "model" / "model.safetensors")
    assert 0 < max((result[name] - start[name]).abs().max().item() for name in start) < 0.01


def test_phase_2_alone_keeps_the_faithful_end_of_the_family_that_it_starts_from(
    material: Path, tmp_path: Path, whole: Path
) -> None:
    """Not the blend that it starts from, which was not trained on pixel loss."""
    init = str(whole / "model")
    train(replace(settings(material, tmp_path), init=init, pixel_steps=0, adversarial_steps=1))
    start = load_file(whole / "model" / "fidelity.safetensors")
    kept = load_file(tmp_path / "model" / "fidelity.safetensors")
    assert all(torch.equal(start[name], kept[name]) for name in start)


@pytest.mark.parametrize("end", ["model", "fidelity"])
def test_a_run_goes_on_from_the_weights_it_began_with_only(
    material: Path, tmp_path: Path, whole: Path, end: str
) -> None:
    shutil.copytree(whole / "model", tmp_path / "base")
    config = replace(
        settings(material, tmp_path / "run"), init=str(tmp_path / "base"), pixel_steps=0, adversarial_steps=2
    )
    assert train(replace(config, max_minutes=1e-6)) is None
    path = tmp_path / "base" / f"{end}.safetensors"
    before = path.read_bytes()
    other = "fidelity" if end == "model" else "model"
    shutil.copyfile(whole / "model" / f"{other}.safetensors", path)
    with pytest.raises(ValueError, match="base holds other weights than those that .*run started from"):
        train(config)
    path.write_bytes(before)
    assert train(config) is not None


def test_a_record_that_cannot_be_read_ends_the_run_at_its_start(
    material: Path, tmp_path: Path, whole: Path
) -> None:
    shutil.copytree(whole / "model", tmp_path / "base")
    path = tmp_path / "base" / "training_record.json"
    content = json.loads(path.read_text())
    content["legs"][0]["of_a_newer_version"] = 1
    path.write_text(json.dumps(content))
    config = replace(settings(material, tmp_path / "run"), init=str(tmp_path / "base"))
    with pytest.raises(ValueError, match="a leg must have the fields of a training run"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_the_first_phase_alone(material: Path, tmp_path: Path) -> None:
    config = replace(settings(material, tmp_path), adversarial_steps=0, vgg="nobody/needs-this")
    train(config)
    assert not (tmp_path / "model" / "fidelity.safetensors").exists()


def test_a_loss_that_is_not_finite_names_its_term_and_step(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = training.PixelPhase.step
    count = 0

    def poisoned(self: training.PixelPhase, batch: object, rate: float) -> dict[str, torch.Tensor]:
        nonlocal count
        count += 1
        losses = step(self, batch, rate)  # type: ignore[arg-type]
        return {name: value * (float("nan") if count == 7 else 1) for name, value in losses.items()}

    monkeypatch.setattr(training.PixelPhase, "step", poisoned)
    with pytest.raises(
        NonFiniteLossError, match="pixel_loss must be finite, got nan at step 7 of the pixel phase"
    ):
        train(settings(material, tmp_path))
    assert json.loads((tmp_path / "checkpoint.json").read_text())["done"]["pixel"] == 6


def record(folder: Path) -> list[dict]:
    return json.loads((folder / "model" / "training_record.json").read_text())["legs"]


def test_the_record_tells_what_was_done(material: Path, whole: Path) -> None:
    (leg,) = record(whole)
    assert leg["steps"] == {"pixel": 12, "adversarial": 8} and leg["seed"] == 0 and leg["start"] is None
    assert leg["data"] == {"statement": None, "images": 4, "megapixels": 0.1}  # 4 x 128 x 128
    last = [line for line in lines(whole) if "psnr_y" in line][-1]
    assert leg["validation"]["psnr_y"] == pytest.approx(last["psnr_y"], abs=1e-4)
    assert leg["validation"]["psnr_y_bicubic"] == pytest.approx(last["psnr_y_bicubic"], abs=1e-4)
    assert leg["hours"] == pytest.approx(lines(whole)[-1]["seconds"] / 3600, abs=1e-3)
    assert leg["machine"]["device"] == "cpu" and leg["machine"]["threads"] == 1 and leg["machine"]["name"]
    assert leg["versions"]["torch"] == version("torch") and leg["versions"]["sr_hub"]
    assert leg["settings"]["batch_size"] == 2 and leg["settings"]["data"] == "photos"
    everything = (whole / "model" / "training_record.json").read_text() + (
        whole / "model" / "README.md"
    ).read_text()
    assert str(material) not in everything, "paths of this machine are nobody's affair"


def test_the_recorded_command_trains_the_same_model(material: Path, tmp_path: Path, whole: Path) -> None:
    """Its paths are names only, so it is run where these names are."""
    (leg,) = record(whole)
    command = shlex.split(leg["command"])
    assert command[:2] == ["python", "train.py"]
    for name in ("photos", "vgg.safetensors"):
        (tmp_path / name).symlink_to(material / name)
    command[:2] = [sys.executable, str(ROOT / "train.py")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert_equal_weights(tmp_path / whole.name, whole)


def test_the_card_and_a_picture_lie_beside_the_weights(whole: Path) -> None:
    card = (whole / "model" / "README.md").read_text()
    assert f"# {whole.name}\n" in card and record(whole)[0]["command"] in card
    sheet = whole / "sheets" / "adversarial-000008.png"
    assert (whole / "model" / "before_after.png").read_bytes() == sheet.read_bytes()


def test_a_second_run_carries_the_legs_of_the_first(material: Path, tmp_path: Path, whole: Path) -> None:
    config = replace(
        settings(material, tmp_path), init=str(whole / "model"), init_fidelity=0.25, pixel_steps=0,
        adversarial_steps=1, seed=5, data_statement="Noise of mine.", license="cc0-1.0",
    )  # fmt: skip
    train(config)
    first, second = record(tmp_path)
    assert first == record(whole)[0]
    assert second["seed"] == 5 and second["steps"] == {"adversarial": 1}
    digest = hashlib.sha256((whole / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert second["start"] == {
        "model": f"{whole.name}/model", "hub": False, "fidelity": 0.25, "sha256": digest
    }  # fmt: skip
    assert second["license"] == "cc0-1.0" and second["data"]["statement"] == "Noise of mine."
    card = (tmp_path / "model" / "README.md").read_text()
    assert "### Run 2 of 2" in card and "license: cc0-1.0" in card


def test_training_pushes_its_model(material: Path, tmp_path: Path, hub: LoopbackHub) -> None:
    config = replace(
        settings(material, tmp_path / "my-run"), adversarial_steps=0, push_to_hub=True, license="mit",
        data_statement="Noise of mine.", hub_private_repo=True, hub_token=hub.token,
    )  # fmt: skip
    result = subprocess.run(command(config), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"pushed to {hub.url}/me/my-run/commit/" in result.stdout
    repository = hub.store.load("me/my-run")
    assert repository is not None and repository.private
    names = set(repository.commits[repository.refs["main"]].files) - {".gitattributes"}
    assert names == {
        "config.json", "model.safetensors", "README.md", "before_after.png", "training_record.json"
    }  # fmt: skip
    pulled = SRGenerator.from_pretrained("me/my-run", token=hub.token, cache_dir=tmp_path / "cache")
    assert torch.equal(
        pulled.tail.weight, SRGenerator.from_pretrained(tmp_path / "my-run" / "model").tail.weight
    )
    for path in (tmp_path / "my-run").rglob("*"):
        assert path.is_dir() or hub.token.encode() not in path.read_bytes(), f"{path} holds the token"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"license": None}, "--push-to-hub needs --license, such as apache-2.0, got none"),
        ({"license": "mine"}, "license must be as the Hub names it, such as apache-2.0"),
        ({"data_statement": None}, "--push-to-hub needs --data-statement"),
        ({"hub_token": "hf_wrong"}, "the Hub does not accept the token"),
        ({"hub_token": None}, "a Hub token is needed"),
        ({"hub_model_id": "you/thing"}, "--hub-model-id must be of me, got you/thing"),
        ({"hub_model_id": "a b"}, "a Hub repository must be user/name of letters"),
    ],
)
def test_a_push_that_cannot_be_ends_before_the_first_step(
    material: Path, tmp_path: Path, hub: LoopbackHub, change: dict, message: str
) -> None:
    wanted = {
        "push_to_hub": True, "license": "mit", "data_statement": "Mine.", "hub_token": hub.token, **change
    }  # fmt: skip
    with pytest.raises((ValueError, PermissionError), match=re.escape(message)):
        check_before_training(replace(settings(material, tmp_path / "run"), **wanted))
    assert hub.store.names() == []


def test_the_name_of_the_repository(material: Path, tmp_path: Path, hub: LoopbackHub) -> None:
    config = replace(
        settings(material, tmp_path / "run"), push_to_hub=True, hub_token=hub.token, license="mit",
        data_statement="Mine.",
    )  # fmt: skip
    for wanted, name in ((None, "me/run"), ("thing", "me/thing"), ("me/other", "me/other")):
        assert check_before_training(replace(config, hub_model_id=wanted)) == name
    hub.role = "read"
    with pytest.raises(PermissionError, match="must be one that may write, got one that may only read"):
        check_before_training(config)


def test_a_refused_push_leaves_no_run_folder(material: Path, tmp_path: Path, hub: LoopbackHub) -> None:
    config = replace(settings(material, tmp_path / "run"), push_to_hub=True, hub_token=hub.token)
    result = subprocess.run(command(config), capture_output=True, text=True)
    assert result.returncode == 2 and not (tmp_path / "run").exists()
    assert result.stderr == "train.py: --push-to-hub needs --license, such as apache-2.0, got none\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": "/no/such/folder"},
            "no folder of training images at /no/such/folder: name one with --data",
        ),
        ({"vgg": "/no/vgg.safetensors"}, "name one with --vgg"),
        ({"init": "/no/model"}, "model must be one of"),
        ({"features": 2000}, "features must lie in [1, 1024], got 2000"),
        ({"init": "photo", "features": 32}, "features must be that of --init, 64, or left out, got 32"),
        ({"init": "photo", "features": 64, "blocks": 3}, "blocks must be that of --init, "),
        ({"patch_size": 500}, "no usable training image: 4 files found, 4 skipped"),
        ({"content_layers": "conv1_9:1"}, "content_layers takes conv1_1 to conv5_4"),
        ({"content_layers": "conv2_1:1"}, "must hold VGG19's 3 first convolutions, got 2"),
        ({"lpips": __file__, "lpips_weight": 1.0}, "test_training.py is not a readable safetensors file"),
        ({"vgg": __file__}, "test_training.py must be a safetensors file of VGG19's weights"),
        ({"adversarial_patch_size": 3}, "adversarial_patch_size times scale must be an even number"),
    ],
)
def test_wrong_settings_end_in_one_sentence(
    material: Path, tmp_path: Path, change: dict, message: str
) -> None:
    config = replace(settings(material, tmp_path), **change)
    result = subprocess.run(command(config), capture_output=True, text=True)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "metrics.jsonl").exists(), "it was found before the first step"


def test_a_flat_picture_that_is_hit_exactly_is_null_in_all_files(material: Path, tmp_path: Path) -> None:
    """A mean over an infinite PSNR is infinite, which JSON has no word for."""
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (48, 48), "white").save(tmp_path / "flat" / "white.png")
    config = replace(
        settings(material, tmp_path / "run"), validation=str(tmp_path / "flat"), adversarial_steps=0,
        pixel_steps=2,
    )  # fmt: skip
    assert train(config) is not None
    assert "Infinity" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert lines(tmp_path / "run")[-1]["psnr_y_bicubic"] is None
    (leg,) = record(tmp_path / "run")
    assert leg["validation"]["psnr_y_bicubic"] is None
    assert (
        read_record(tmp_path / "run" / "model" / "training_record.json")[0].validation.psnr_y_bicubic
        == math.inf
    )
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "flat: PSNR-Y " in card and "bicubic inf dB" in card
    assert (tmp_path / "run" / "curves.png").exists()
    assert (
        train(replace(config, init=str(tmp_path / "run" / "model"), out=str(tmp_path / "second"))) is not None
    )
    assert record(tmp_path / "second")[0] == leg


def test_broken_pictures_among_the_held_out_ones_are_skipped(
    material: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(material / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "0.png").write_bytes(b"broken")
    Image.new("RGB", (12, 12)).save(tmp_path / "photos" / "00.png")
    config = replace(
        settings(material, tmp_path / "run"), data=str(tmp_path / "photos"), adversarial_steps=0,
        pixel_steps=1,
    )  # fmt: skip
    assert train(config) is not None
    messages = [line for line in caplog.messages if line.startswith("skipped")]
    assert len(messages) == 2 and "0.png: unreadable" in messages[0] and "12x12 is smaller" in messages[1]


def test_sheets_are_in_the_order_of_the_steps(tmp_path: Path) -> None:
    names = ["pixel-999000", "pixel-1000000", "adversarial-000500"]
    (tmp_path / "sheets").mkdir()
    for name in [*names, "mine"]:
        (tmp_path / "sheets" / f"{name}.png").touch()
    assert [path.stem for path in sheets(tmp_path)] == names
    assert [path.stem for path in sheets(tmp_path, "pixel")] == names[:2]


def test_pictures_are_held_out_only_while_others_can_be_trained_on(material: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(24):
        if index % 6:
            Image.new("RGB", (24, 24)).save(photos / f"{index:02d}.png")
        else:
            shutil.copyfile(material / "photos" / "0.png", photos / f"{index:02d}.png")
    config = replace(
        settings(material, tmp_path / "run"), data=str(photos), adversarial_steps=0, pixel_steps=1
    )
    assert train(config) is not None
    assert record(tmp_path / "run")[0]["data"]["images"] == 4


@pytest.mark.parametrize("linked", [False, True])
def test_a_validation_folder_among_the_data_is_not_trained_on(
    material: Path, tmp_path: Path, linked: bool
) -> None:
    shutil.copytree(material / "photos", tmp_path / "photos")
    shutil.copytree(material / "photos", tmp_path / "apart" / "HR")
    held_out = tmp_path / "photos" / "held_out"
    if linked:
        held_out.symlink_to(tmp_path / "apart")
    else:
        (tmp_path / "apart").rename(held_out)
    config = replace(
        settings(material, tmp_path / "run"), data=str(tmp_path / "photos"), adversarial_steps=0,
        pixel_steps=1, validation=str(tmp_path / "photos" / "held_out"),
    )  # fmt: skip
    assert train(config) is not None
    assert record(tmp_path / "run")[0]["data"]["images"] == 4
    assert record(tmp_path / "run")[0]["validation"]["images"] == "held_out"


def test_a_picture_too_small_to_validate_on_ends_the_run_at_its_start(material: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    Image.new("RGB", (16, 40)).save(tmp_path / "small" / "x.png")
    config = replace(settings(material, tmp_path / "run"), validation=str(tmp_path / "small"))
    with pytest.raises(ValueError, match=r"x.png must have sides of at least 20 pixels .*, got 16x40"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["run", "."])
def test_the_pictures_of_the_run_itself_are_not_trained_on(
    material: Path, tmp_path: Path, place: str
) -> None:
    shutil.copytree(material / "photos", tmp_path, dirs_exist_ok=True)
    config = replace(
        settings(material, tmp_path / place), data=str(tmp_path), adversarial_steps=0, pixel_steps=1
    )
    for _ in range(2):
        assert train(config) is not None
        assert record(tmp_path / place)[0]["data"]["images"] == 4


def test_a_start_without_a_checkpoint_does_not_bind_the_folder(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(settings(material, tmp_path), adversarial_steps=0, validate_every=2, checkpoint_every=9)
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config)
    assert (tmp_path / "sheets" / "pixel-000008.png").exists()
    (tmp_path / "sheets" / "mine.png").write_bytes(b"")
    assert train(replace(config, blocks=2, pixel_steps=2)) is not None
    assert sorted(os.listdir(tmp_path / "sheets")) == ["mine.png", "pixel-000002.png"]
    assert [line["step"] for line in lines(tmp_path) if "rate" in line] == [2]
    with pytest.raises(ValueError, match="blocks was 2, is 1"):
        train(replace(config, pixel_steps=2))


@pytest.mark.skipif(sys.platform == "win32", reason="has no ulimit")
@pytest.mark.parametrize(("limit", "file"), [(4, "sheets/pixel-000012.png"), (40, "checkpoint-pixel-3")])
def test_a_full_disk_names_the_file(material: Path, tmp_path: Path, limit: int, file: str) -> None:
    """Files of at most ``limit`` KiB stand for it."""
    config = replace(settings(material, tmp_path), adversarial_steps=0)
    config = replace(config, checkpoint_every=99) if limit == 4 else replace(config, features=64)
    limited = ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "bash", *command(config)]
    result = subprocess.run(limited, capture_output=True, text=True)
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    assert f"train.py: {tmp_path / file}" in result.stderr and "ile too large" in result.stderr


def test_a_start_that_fails_leaves_no_run_folder(material: Path, tmp_path: Path) -> None:
    config = replace(settings(material, tmp_path / "run"), data=str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError):
        train(config)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_settings_is_refused(material: Path, tmp_path: Path, whole: Path) -> None:
    config = replace(settings(material, whole), batch_size=4, learning_rate=1e-4)
    with pytest.raises(ValueError, match=r"batch_size was 2, is 4, learning_rate was 0.0015, is 0.0001"):
        train(config)


def test_pictures_that_were_left_out_for_validation_stay_left_out(material: Path, tmp_path: Path) -> None:
    config = replace(settings(material, tmp_path / "run"), max_minutes=1e-6)
    assert train(config) is None
    with pytest.raises(ValueError, match=r"other settings \(validation was None, is "):
        train(replace(config, validation=str(material / "photos")))
    config = replace(config, out=str(tmp_path / "other"), validation=str(material / "photos"))
    assert train(config) is None
    (tmp_path / "photos").symlink_to(material / "photos")
    assert train(replace(config, validation=str(tmp_path / "photos"))) is None
    with pytest.raises(ValueError, match="is None"):
        train(replace(config, validation=None))


def test_two_trainings_in_one_folder_are_one_too_many(material: Path, tmp_path: Path) -> None:
    config = replace(settings(material, tmp_path), adversarial_steps=0)
    with sole_user(tmp_path / ".lock"):
        result = subprocess.run(command(config), capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.endswith(f"\ntrain.py: {tmp_path} is in use by another process\n")
    assert not (tmp_path / "train_config.json").exists()
    assert train(config) == tmp_path / "model"


def test_an_interrupt_before_the_first_step_is_no_traceback(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = runpy.run_path(str(ROOT / "train.py"))

    def interrupted(config: TrainConfig) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(program["main"].__globals__, "train", interrupted)
    monkeypatch.setattr(sys, "argv", ["train.py", *flags(settings(material, tmp_path))])
    assert program["main"]() == 130
    assert capsys.readouterr().err == "train.py: interrupted\n"


def test_a_run_starts_from_a_private_repository(
    material: Path, tmp_path: Path, whole: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = CardOptions(license="mit", data_statement="Noise.")
    push_folder(whole / "model", "me/base", PushOptions(private=True, token=hub.token), facts)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    config = replace(
        settings(material, tmp_path / "run"), init="me/base", init_fidelity=1.0, adversarial_steps=0,
        hub_token=hub.token,
    )  # fmt: skip
    assert train(config) == tmp_path / "run" / "model"
    first, second = record(tmp_path / "run")
    assert second["start"]["model"] == "me/base" and second["start"]["hub"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="no repository me/base on the Hub, or it is private"):
        train(replace(config, out=str(tmp_path / "other"), hub_token=None))


def test_a_record_that_cannot_be_fetched_ends_the_run_at_its_start(
    material: Path, tmp_path: Path, whole: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = CardOptions(license="mit", data_statement="Noise.")
    push_folder(whole / "model", "me/base", PushOptions(token=hub.token), facts)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    SRGenerator.from_pretrained("me/base")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = replace(settings(material, tmp_path / "run"), init="me/base", adversarial_steps=0)
    with pytest.raises(ConnectionError, match="training_record.json of me/base is not in the cache"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_rises_then_follows_half_a_cosine() -> None:
    assert learning_rate_factor(0, 0.0, 10, 0.1) == pytest.approx(0.1)
    assert learning_rate_factor(50, 0.5, 10, 0.1) == pytest.approx(0.55)
    assert learning_rate_factor(99, 0.99, 10, 0.1) == pytest.approx(0.1, abs=1e-3)
    assert learning_rate_factor(0, 0.0, 0, 0.0) == 1.0
