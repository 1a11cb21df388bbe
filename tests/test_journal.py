import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sr_hub import SRGenerator
from sr_hub.config import TrainConfig
from sr_hub.evaluation import Sample
from sr_hub.journal import Journal, NonFiniteLossError


def make(folder: Path, *, rank: int = 0, tensorboard: bool = False) -> Journal:
    (folder / "sheets").mkdir(exist_ok=True)
    grey = Sample("grey", torch.full((1, 3, 32, 32), 0.5), torch.full((1, 3, 8, 8), 0.5))
    config = TrainConfig(data="nowhere", out=str(folder), tensorboard=tensorboard)
    return Journal(config, [grey], torch.device("cpu"), lambda: 2.04, rank=rank)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(*values: float) -> list[dict[str, Tensor]]:
    return [{"pixel_loss": torch.tensor(value), "grid_loss": torch.tensor(2 * value)} for value in values]


def test_losses_are_means_of_the_steps_since_the_last_line(tmp_path: Path) -> None:
    journal = make(tmp_path)
    assert journal.losses("pixel", 3, steps(1, 2, 6), 0.5) == {"pixel_loss": 3, "grid_loss": 6}
    journal.losses("pixel", 4, steps(8), 0.25)
    first = {"phase": "pixel", "step": 3, "seconds": 2.0, "rate": 0.5, "pixel_loss": 3, "grid_loss": 6}
    second = {"phase": "pixel", "step": 4, "seconds": 2.0, "rate": 0.25, "pixel_loss": 8, "grid_loss": 16}
    assert lines(tmp_path) == [first, second]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named_and_not_written(tmp_path: Path, bad: float) -> None:
    pending = steps(1, 2, 3)
    pending[1]["grid_loss"] = torch.tensor(bad)
    with pytest.raises(NonFiniteLossError, match=f"grid_loss must be finite, got {bad} at step 9 of"):
        make(tmp_path).losses("pixel", 10, pending, 1)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_an_image_hit_exactly_is_null(tmp_path: Path) -> None:
    class Exact(torch.nn.Module):
        def forward(self, lr: Tensor) -> Tensor:
            return lr.repeat_interleave(4, -1).repeat_interleave(4, -2)

    make(tmp_path).validate("pixel", 5, Exact())  # type: ignore[arg-type]  # of a generator's shape
    assert [line["psnr_y"] for line in lines(tmp_path)] == [None]
    assert (tmp_path / "sheets" / "pixel-000005.png").exists()


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    journal = make(tmp_path, rank=1)
    journal.losses("pixel", 1, steps(1), 1)
    journal.validate("pixel", 1, SRGenerator(features=8, blocks=2))
    assert [path.name for path in tmp_path.rglob("*")] == ["sheets"]


def test_tensorboard_shows_the_steps_that_count_once(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    before = make(tmp_path, tensorboard=True)
    for step in (1, 2, 3):
        before.losses("pixel", step, steps(step), 1)
    assert before.board is not None
    before.board.close()
    kept = (
        (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)[:2]
    )  # the checkpoint is of step 2
    (tmp_path / "metrics.jsonl").write_text("".join(kept))
    after = make(tmp_path, tensorboard=True)
    after.losses("pixel", 3, steps(30), 1)
    assert after.board is not None
    after.board.close()
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("pixel/pixel_loss")]
    assert shown == [(1, 1), (2, 2), (3, 30)]
