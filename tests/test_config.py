import argparse
import dataclasses
import json
from pathlib import Path

import pytest

from sr_hub.config import TrainConfig, add_arguments, from_arguments


def parse(*arguments: str) -> TrainConfig:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return from_arguments(parser.parse_args(arguments))


def test_no_flags_give_the_defaults() -> None:
    assert parse() == TrainConfig()


def test_flags_of_every_kind() -> None:
    config = parse(
        "--data", "photos", "--scale", "2", "--learning-rate", "1e-3", "--compile", "--pixel-loss", "mse",
        "--validation", "held_out", "--no-tensorboard",
    )  # fmt: skip
    assert config == TrainConfig(
        data="photos", scale=2, learning_rate=1e-3, compile=True, pixel_loss="mse", validation="held_out"
    )


def test_every_field_has_help() -> None:
    for field in dataclasses.fields(TrainConfig):
        assert len(field.metadata["help"]) > 10, field.name


def test_saved_settings_load_again(tmp_path: Path) -> None:
    config = TrainConfig(data="photos", batch_size=3, init="clean", init_fidelity=0.25)
    config.save(tmp_path / "train_config.json")
    assert TrainConfig.load(tmp_path / "train_config.json") == config
    assert [path.name for path in tmp_path.iterdir()] == ["train_config.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "must be JSON"), (json.dumps({"batchsize": 1}), "unknown settings: batchsize")],
)
def test_broken_settings_file(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        TrainConfig.load(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"pixel_weight": float("nan")}, "pixel_weight must be finite, got nan"),
        ({"max_minutes": float("nan")}, "max_minutes must be finite, got nan"),
        ({"budget_minutes": float("nan")}, "budget_minutes must be finite, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be finite, got inf"),
        ({"learning_rate": 1e38}, "learning_rate must be at most 100, got 1e.38"),
        ({"seed": 2**63}, r"seed must be below 2\^63, got 9223372036854775808"),
        ({"init_fidelity": float("nan")}, "init_fidelity must be finite, got nan"),
        ({"init_fidelity": 0.5}, "init_fidelity needs init, got 0.5 for new weights"),
        ({"out": "runs/\udcff"}, r"out must be UTF-8, as it is written down, got 'runs/\\udcff'"),
        ({"shrink": 0.5}, r"shrink must lie in \[1, 8\], got 0.5"),
        ({"recolor": 1.5}, r"recolor must lie in \[0, 1\], got 1.5"),
        ({"ema_decay": 1.5}, r"ema_decay must lie in \[0, 1\], got 1.5"),
        ({"pixel_steps": 0, "adversarial_steps": 0}, "nothing to train"),
        ({"lpips": "alex.safetensors"}, "lpips and lpips_weight must be given together, got alex.* and 0.0"),
        ({"lpips_weight": 1.0}, "lpips and lpips_weight must be given together, got None and 1.0"),
    ],
)
def test_wrong_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)
