"""Runs of the trainer as a user starts them: whole, killed, resumed, by two processes, broken."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sr_hub import SRGenerator, training
from sr_hub.config import TrainConfig
from sr_hub.losses import VGG19Features
from sr_hub.training import NonFiniteLossError, learning_rate_factor, train

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
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    return arguments


def command(config: TrainConfig) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *flags(config)]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": "/no/such/folder"},
            "no folder of training images at /no/such/folder: name one with --data",
        ),
        ({"vgg": "/no/vgg.safetensors"}, "name one with --vgg"),
        ({"init": "/no/model"}, "model must be one of"),
        ({"patch_size": 500}, "no usable training image: 4 files found, 4 skipped"),
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


def test_a_folder_with_other_settings_is_refused(material: Path, tmp_path: Path, whole: Path) -> None:
    config = replace(settings(material, whole), batch_size=4, learning_rate=1e-4)
    with pytest.raises(ValueError, match=r"batch_size was 2, is 4, learning_rate was 0.004, is 0.0001"):
        train(config)


def test_the_learning_rate_rises_then_follows_half_a_cosine() -> None:
    assert learning_rate_factor(0, 100, 10, 0.1) == pytest.approx(0.1)
    assert learning_rate_factor(50, 100, 10, 0.1) == pytest.approx(0.55)
    assert learning_rate_factor(99, 100, 10, 0.1) == pytest.approx(0.1, abs=1e-3)
    assert learning_rate_factor(0, 100, 0, 0.0) == 1.0
