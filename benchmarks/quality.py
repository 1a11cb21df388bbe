"""Scores, seconds and memory of every contender on the same pictures, picture by picture in turn."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.contenders import Contender, Worker
from benchmarks.worker import SCALE
from sr_hub.data import decode
from sr_hub.evaluation import Pair
from sr_hub.metrics import LPIPS, psnr_y

_REST = 0.01  # seconds, until the threads of the contender before have stopped waiting
SLOW = 3.0
"""Seconds per output megapixel from which a contender is timed once only."""


@dataclass
class Result:
    """What one contender got: means over the pictures of PSNR-Y (dB) and LPIPS, median time, peak memory.

    ``vgg19`` is the mean of `benchmarks.damages.VGG19Distance` where that was asked for.
    ``seconds`` are per output megapixel, the median over pictures and rounds; ``quartiles`` their spread.
    ``peak_memory`` is of its whole process, in bytes. ``error`` says why there are no numbers.
    """

    name: str
    psnr_y: float | None = None
    lpips: float | None = None
    seconds: float | None = None
    quartiles: tuple[float, float] | None = None
    peak_memory: int | None = None
    timings: int = 0
    error: str | None = None
    vgg19: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields, ``vgg19`` where it was measured."""
        return {name: value for name, value in asdict(self).items() if name != "vgg19" or value is not None}


@dataclass
class _Tally:
    """What a contender did so far."""

    psnr_y: list[float] = field(default_factory=list)
    lpips: list[float] = field(default_factory=list)
    vgg19: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak_memory: int = 0


def compare(
    contenders: Sequence[Contender],
    pairs: Sequence[Pair],
    *,
    lpips: LPIPS | None,
    folder: Path,
    rounds: int = 3,
    vgg19: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> list[Result]:
    """Lets all contenders enlarge each picture in turn, ``rounds`` times.

    Args:
        contenders: In the order of the results.
        pairs: With LR files.
        lpips: Measures LPIPS too.
        folder: For pictures in passing.
        rounds: How often each picture is enlarged; the first is not timed for the first picture, as libraries
            make themselves ready then.
        vgg19: Measures that distance too.
    """
    workers = [Worker(contender) for contender in contenders]
    tallies = [_Tally() for _ in contenders]
    first = min(pairs, key=lambda pair: pair.hr.stat().st_size)
    for worker in workers:
        worker.ask({"lr": str(first.lr)})
    steps = [(index, pair) for index in range(rounds) for pair in pairs]
    for index, pair in tqdm(steps, unit="picture", file=sys.stderr, disable=None):
        hr = _read(pair.hr)
        for worker, tally in zip(workers, tallies, strict=True):
            if index and statistics.median(tally.seconds or [0.0]) > SLOW:
                continue
            file = folder / "sr.png"
            time.sleep(_REST)
            answer = worker.ask({"lr": str(pair.lr)} | ({} if index else {"sr": str(file)}))
            if answer is None:
                continue
            tally.seconds.append(answer["seconds"] / answer["megapixels"])
            tally.peak_memory = int(answer["peak_memory"])
            if index == 0:
                sr = _read(file)
                tally.psnr_y.append(psnr_y(sr, hr, SCALE).item())
                if lpips is not None:
                    with torch.inference_mode():
                        tally.lpips.append(lpips(sr, hr).item())
                if vgg19 is not None:
                    tally.vgg19.append(vgg19(sr, hr).item())
    for worker in workers:
        worker.close()
    return [
        _result(contender, worker, tally)
        for contender, worker, tally in zip(contenders, workers, tallies, strict=True)
    ]


def _result(contender: Contender, worker: Worker, tally: _Tally) -> Result:
    if worker.error is not None:
        return Result(contender.name, error=worker.error)
    low, _, high = statistics.quantiles(tally.seconds, n=4) if len(tally.seconds) > 1 else tally.seconds * 3
    return Result(
        contender.name,
        psnr_y=statistics.fmean(tally.psnr_y),
        lpips=statistics.fmean(tally.lpips) if tally.lpips else None,
        vgg19=statistics.fmean(tally.vgg19) if tally.vgg19 else None,
        seconds=statistics.median(tally.seconds),
        quartiles=(low, high),
        peak_memory=tally.peak_memory,
        timings=len(tally.seconds),
    )


def _read(path: Path) -> torch.Tensor:
    return torch.tensor(decode(path)).permute(2, 0, 1)[None].float() / 255
