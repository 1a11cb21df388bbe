"""Records on disk: what is written is what is read."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from sr_hub.config import TrainConfig
from sr_hub.generator import SRGenerator
from sr_hub.pretrained import DEFAULT_FIDELITY
from sr_hub.training_record import Data, Leg, Validation, describe_run, read_record, write_record


def leg(validation: Validation | None) -> Leg:
    return Leg("train", {}, 0, {"pixel": 1}, None, None, {}, Data(), None, validation, None)


@pytest.mark.parametrize(
    "validation", [None, Validation("set", 30.5, 28.25), Validation("flat", 30.5, math.inf)]
)
def test_a_record_comes_back_as_it_was(tmp_path: Path, validation: Validation | None) -> None:
    write_record(tmp_path / "record.json", [leg(validation)])
    assert "Infinity" not in (tmp_path / "record.json").read_text()
    assert read_record(tmp_path / "record.json") == [leg(validation)]


def test_what_was_done_after_a_run_is_told_and_need_not_be_there(tmp_path: Path) -> None:
    blended = dataclasses.replace(leg(None), afterwards="A tenth of another.")
    write_record(tmp_path / "record.json", [leg(None), blended])
    assert read_record(tmp_path / "record.json") == [leg(None), blended]
    content = json.loads((tmp_path / "record.json").read_text())
    del content["legs"][0]["afterwards"]  # as in records from before
    (tmp_path / "record.json").write_text(json.dumps(content))
    assert read_record(tmp_path / "record.json") == [leg(None), blended]


def test_an_infinite_psnr_is_null_in_the_file(tmp_path: Path) -> None:
    write_record(tmp_path / "record.json", [leg(Validation("flat", math.inf, 28.25))])
    (written,) = json.loads((tmp_path / "record.json").read_text())["legs"]
    assert written["validation"] == {"images": "flat", "psnr_y": None, "psnr_y_bicubic": 28.25}


@pytest.mark.parametrize("infinite", ["null", "Infinity"])  # the latter was written before
def test_a_run_with_an_infinite_psnr_is_described(tmp_path: Path, infinite: str) -> None:
    TrainConfig(validation="a/flat").save(tmp_path / "train_config.json")
    line = '{"phase": "pixel", "step": 3, "seconds": 9.0, "psnr_y": 30.12346, "psnr_y_bicubic": %s}\n'
    (tmp_path / "metrics.jsonl").write_text(line % infinite)
    assert describe_run(tmp_path).validation == Validation("flat", 30.1235, math.inf)


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    TrainConfig().save(tmp_path / "train_config.json")
    line = '{"phase": "pixel", "step": 3, "seconds": 9.0}\n'
    (tmp_path / "metrics.jsonl").write_text(line + line.replace("3", "6")[:20])
    assert describe_run(tmp_path).steps == {"pixel": 3}
    (tmp_path / "metrics.jsonl").write_text(line[:20] + "\n" + line)
    with pytest.raises(ValueError, match="must hold JSON lines"):
        describe_run(tmp_path)


def test_a_validation_here_has_the_name_of_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    TrainConfig(validation=".").save(tmp_path / "train_config.json")
    line = {"phase": "pixel", "step": 3, "seconds": 9.0, "psnr_y": 30.0, "psnr_y_bicubic": 28.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert describe_run(tmp_path).validation == Validation(tmp_path.name, 30.0, 28.0)


def test_the_blend_that_a_family_starts_from_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "one-end")
    for init, asked, told in (
        ("photo", None, DEFAULT_FIDELITY), ("photo", 1.0, 1.0), (str(tmp_path / "one-end"), None, None)
    ):  # fmt: skip
        TrainConfig(init=init, init_fidelity=asked).save(tmp_path / "train_config.json")
        start = describe_run(tmp_path).start
        assert start is not None and start.fidelity == told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "7 |"}, "seed must be int, got '7 |'"),
        ({"seed": True}, "seed must be int, got True"),
        ({"steps": {"pixel": "<b>"}}, "steps must be dict[str, int], got {'pixel': '<b>'}"),
        ({"versions": {"torch": 2}}, "versions must be dict[str, str], got {'torch': 2}"),
        ({"command": ["train"]}, "command must be str, got ['train']"),
        ({"command": "\ud800"}, "command must be str, got '\\ud800'"),
        ({"hours": "2"}, "hours must be float | None, got '2'"),
        ({"hours": math.inf}, "Out of range float values"),
        ({"data": {"images": 1.5}}, "images must be int | None, got 1.5"),
        ({"data": None}, "data must be Data, got None"),
        ({"settings": {"degradation": ["photo"]}}, "degradation must be str, got ['photo']"),
        ({"of_a_newer_version": 1}, "unexpected keyword argument 'of_a_newer_version'"),
    ],
)
def test_a_value_of_another_type_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_record(tmp_path / "record.json", [leg(None)])
    content = json.loads((tmp_path / "record.json").read_text())
    content["legs"][0] |= change
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"record.json: a leg must have .*{re.escape(message)}"):
        read_record(tmp_path / "record.json")


@pytest.mark.parametrize("validation", [{"images": "set"}, {"psnr_y": None}, {"other": 1}, "set"])
def test_a_broken_validation_is_named(tmp_path: Path, validation: Any) -> None:
    write_record(tmp_path / "record.json", [leg(None)])
    content = json.loads((tmp_path / "record.json").read_text())
    content["legs"][0]["validation"] = validation
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"record.json: a leg must have the fields of a training run"):
        read_record(tmp_path / "record.json")
