"""What a run tells while it goes on: losses, validation beside bicubic, sheets."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from sr_hub.config import TrainConfig
from sr_hub.evaluation import Sample, evaluate
from sr_hub.generator import SRGenerator
from sr_hub.sheet import CentreCrops, save_sheet
from sr_hub.training_record import METRICS_FILE


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; the message names it and the step."""


class Journal:
    """Writes ``metrics.jsonl``, ``sheets/`` and, where it is asked for, TensorBoard's events.

    In a run of several processes each has one, and only the first's writes.

    Args:
        config: The run's; ``out`` is the folder, which must be there.
        validation: What is scored, already read.
        device: Where the generator runs.
        seconds: How long the run has taken until now.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        validation: Sequence[Sample],
        device: torch.device,
        seconds: Callable[[], float],
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.folder = Path(config.out)
        self.scale, self.validation, self.device = config.scale, validation, device
        self.seconds, self.writes, self.world_size = seconds, rank == 0, world_size
        self.board = None
        if config.tensorboard and self.writes:
            from torch.utils.tensorboard import SummaryWriter

            for events in self.folder.glob("events.out.tfevents.*"):
                events.unlink()  # they tell of steps that are taken again
            self.board = SummaryWriter(self.folder)
            self._show_metrics()

    def losses(
        self, phase: str, step: int, pending: list[dict[str, Tensor]], rate: float
    ) -> dict[str, float]:
        """Checks the losses of the steps up to ``step``, writes their means and returns them.

        Args:
            phase: Its name.
            step: Steps done.
            pending: Losses by name of each step since the last call, at least one.
            rate: Share of the peak learning rate.

        Raises:
            NonFiniteLossError: If one is not finite.
        """
        keys = list(pending[0])
        table = torch.stack([torch.stack([losses[key].float() for key in keys]) for losses in pending])
        if self.world_size > 1:
            dist.all_reduce(table)
            table /= self.world_size
        table = table.cpu()
        for index, row in enumerate(table):
            for key, value in zip(keys, row.tolist(), strict=True):
                if not math.isfinite(value):
                    bad = step - len(pending) + index + 1
                    raise NonFiniteLossError(
                        f"{key} must be finite, got {value} at step {bad} of the {phase} phase; the last "
                        f"checkpoint is from before. Try a lower learning rate or --clip-gradient 1"
                    )
        means = dict(zip(keys, table.mean(0).tolist(), strict=True))
        self._write(phase, step, {"rate": rate, **means})
        return means

    def validate(self, phase: str, step: int, generator: SRGenerator) -> None:
        """Scores ``generator`` beside bicubic and saves a sheet of its crops.

        Raises:
            OSError: If the sheet cannot be written; names it.
        """
        if not self.writes:
            return
        crops = CentreCrops()
        scores = evaluate(generator, self.validation, self.scale, device=self.device, observers=[crops])
        sheet = self.folder / "sheets" / f"{phase}-{step:06d}.png"
        try:
            save_sheet(sheet, crops.rows)
        except OSError as error:  # of a full disk, which does not say for which file
            raise OSError(f"{sheet} cannot be written: {error}") from error
        sr, bicubic = scores.sr.psnr_y, scores.bicubic.psnr_y
        self._write(phase, step, {"psnr_y": sr, "psnr_y_bicubic": bicubic})
        tqdm.write(f"{phase} {step}: PSNR-Y {sr:.2f} dB, bicubic {bicubic:.2f} dB")

    def _show_metrics(self) -> None:
        """Shows on the board what ``metrics.jsonl`` tells of the run until now."""
        path = self.folder / METRICS_FILE
        for line in map(json.loads, path.read_text().splitlines() if path.is_file() else ()):
            phase, step, _ = (line.pop(name) for name in ("phase", "step", "seconds"))
            self._show(
                phase, step, {name: math.inf if value is None else value for name, value in line.items()}
            )

    def _show(self, phase: str, step: int, values: dict[str, float]) -> None:
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{phase}/{name}", value, step)

    def _write(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Adds a line to ``metrics.jsonl``; an infinite PSNR, of an image hit exactly, is null."""
        if not self.writes:
            return
        numbers = {key: None if value == math.inf else value for key, value in values.items()}
        line = {"phase": phase, "step": step, "seconds": round(self.seconds(), 1), **numbers}
        with (self.folder / METRICS_FILE).open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        self._show(phase, step, values)
