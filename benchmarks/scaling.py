"""Time, memory and share of the machine's rates of ``upscale``, from small pictures to large ones."""

import copy
import gc
import platform
import resource
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import make_convolution, make_product, seconds_of
from sr_hub.allocator import freed_memory_kept, give_back
from sr_hub.generator import SRGenerator
from sr_hub.inference import choose_dtype, upscale

SIDES = (64, 128, 256, 512, 1024, 2048, 4096)
_LARGEST_CONVOLUTION = 2048  # LR pixels a side; beyond, its rate at this side is taken
_PRODUCT = 2048


_Machine = list[tuple[Callable[[], object], list[float]]]


@dataclass(frozen=True)
class Point:
    """``upscale`` of ``side`` x ``side`` 8-bit pixels. Times are medians of ``runs`` interleaved runs.

    ``seconds`` is the whole call, ``network_seconds`` the part of it inside the network, ``forward_seconds``
    the network on the whole picture at once (None where that is too large). The rates are FLOP/s: of the
    network inside the call, of one 3x3 convolution of the trunk's width on a picture of this side alone, and
    of a product of 2048 x 2048 matrices in the network's precision and in bf16, which is slow where the
    processor has no instructions for it. The shares are medians over the runs, of rates measured next to each
    other.
    """

    side: int
    runs: int
    seconds: float
    network_seconds: float
    forward_seconds: float | None
    peak_memory: int
    network_rate: float
    convolution_rate: float
    matrix_rate: float
    bf16_matrix_rate: float
    share_of_convolution: float
    share_of_matrix_product: float
    share_of_bf16_matrix_product: float

    def to_json(self) -> dict[str, Any]:
        """Its fields, and the ratios that matter."""
        return asdict(self) | {
            "seconds_per_megapixel": self.seconds / (self.side**2 / 1e6),
            "call_over_network": self.seconds / self.network_seconds,
        }


@dataclass
class _Side:
    """Seconds of the runs on pictures of this side, and the peak memory of the first."""

    side: int
    peak_memory: int = 0
    runs_a_pass: int = 1
    call: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)
    convolution: list[float] = field(default_factory=list)
    product: list[float] = field(default_factory=list)
    bf16_product: list[float] = field(default_factory=list)


def measure_scaling(
    generator: SRGenerator,
    sides: Sequence[int] = SIDES,
    *,
    passes: int = 3,
    seconds_a_pass: float = 3.0,
    longest: float = 60.0,
) -> list[Point]:
    """One point for each side, in the precision that `upscale` chooses by itself.

    A machine that others share runs now faster, now slower, so the sides take turns: each is run for about
    ``seconds_a_pass``, and once at least, in each of the passes. A call that takes more than ``longest``
    seconds is made once, and not to warm up before.
    """
    dtype = choose_dtype(torch.device("cpu"), "auto")
    measured = [_Side(side) for side in sides]
    with torch.inference_mode(), freed_memory_kept():
        upscale(generator, _picture(64))
        for number in range(passes):
            for times in measured:
                if number == 0:
                    _run_first(generator, times, dtype, seconds_a_pass, longest)
                if times.runs_a_pass:
                    _run_in_turn(generator, times, dtype)
    return [_point(generator, times, dtype) for times in measured]


def _picture(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


def _run_first(
    generator: SRGenerator, times: _Side, dtype: torch.dtype, seconds_a_pass: float, longest: float
) -> None:
    """The call that tells the memory and how many fit into a pass. A long one counts, others warm up."""
    _reset_peak()
    seconds, network = _time_call(generator, _picture(times.side))
    times.peak_memory = _peak()
    if seconds <= longest:
        times.runs_a_pass = max(1, min(5, int(seconds_a_pass / seconds)))
        return
    times.runs_a_pass = 0
    _note_run(times, seconds, network, _warm_machine(generator, times, dtype))


def _run_in_turn(generator: SRGenerator, times: _Side, dtype: torch.dtype) -> None:
    pixels, machine = _picture(times.side), _warm_machine(generator, times, dtype)
    for _ in range(times.runs_a_pass):
        _note_run(times, *_time_call(generator, pixels), machine)


def _time_call(generator: SRGenerator, pixels: np.ndarray) -> tuple[float, float]:
    """Seconds of `upscale`, and of the network inside it."""
    with timed_residual() as inside:
        seconds = seconds_of(lambda: upscale(generator, pixels))
    return seconds, sum(inside)


def _warm_machine(generator: SRGenerator, times: _Side, dtype: torch.dtype) -> _Machine:
    """Calls that tell what the machine can do just now, made once, and where their seconds go."""
    conv, _ = _convolution(generator, times.side, dtype)
    product, _ = make_product(_PRODUCT, dtype)
    bf16_product, _ = make_product(_PRODUCT, torch.bfloat16)
    machine: _Machine = [
        (conv, times.convolution),
        (product, times.product),
        (bf16_product, times.bf16_product),
    ]
    for call, _ in machine:
        call()
    return machine


def _note_run(times: _Side, seconds: float, network: float, machine: _Machine) -> None:
    """Adds a run, and what the machine does beside it."""
    times.call.append(seconds)
    times.network.append(network)
    for call, noted in machine:
        noted.append(seconds_of(call))


def _convolution(generator: SRGenerator, side: int, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    return make_convolution(generator.head.out_channels, min(side, _LARGEST_CONVOLUTION), dtype)


def _point(generator: SRGenerator, times: _Side, dtype: torch.dtype) -> Point:
    weights = sum(weight.numel() for weight in generator.parameters() if weight.ndim == 4)
    network_rates = [2.0 * times.side**2 * weights / seconds for seconds in times.network]
    _, work = _convolution(generator, times.side, dtype)
    convolution_rates = [work / seconds for seconds in times.convolution]
    _, work = make_product(_PRODUCT, dtype)
    matrix_rates = [work / seconds for seconds in times.product]
    bf16_matrix_rates = [work / seconds for seconds in times.bf16_product]
    return Point(
        side=times.side,
        runs=len(times.call),
        seconds=statistics.median(times.call),
        network_seconds=statistics.median(times.network),
        forward_seconds=_forward_seconds(generator, times.side, dtype) if times.side <= 1024 else None,
        peak_memory=times.peak_memory,
        network_rate=statistics.median(network_rates),
        convolution_rate=statistics.median(convolution_rates),
        matrix_rate=statistics.median(matrix_rates),
        bf16_matrix_rate=statistics.median(bf16_matrix_rates),
        share_of_convolution=_median_ratio(network_rates, convolution_rates),
        share_of_matrix_product=_median_ratio(network_rates, matrix_rates),
        share_of_bf16_matrix_product=_median_ratio(network_rates, bf16_matrix_rates),
    )


def _median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(value / other for value, other in zip(values, others, strict=True))


def _forward_seconds(generator: SRGenerator, side: int, dtype: torch.dtype) -> float:
    """``generator(lr)`` alone, on the whole picture."""
    network = copy.deepcopy(generator).to(dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    lr = torch.from_numpy(_picture(side)).permute(2, 0, 1)[None].float() / 255
    lr = lr.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), freed_memory_kept():
        network(lr)
        return statistics.median(seconds_of(lambda: network(lr)) for _ in range(3))


@contextmanager
def timed_residual() -> Iterator[list[float]]:
    """Seconds of every call of the network inside `upscale`, which takes its residual."""
    plain = SRGenerator.residual
    seconds: list[float] = []

    def timed(*arguments: Any, **options: Any) -> torch.Tensor:
        results: list[torch.Tensor] = []
        seconds.append(seconds_of(lambda: results.append(plain(*arguments, **options))))
        return results[0]

    SRGenerator.residual = timed  # type: ignore[method-assign,assignment]
    try:
        yield seconds
    finally:
        SRGenerator.residual = plain  # type: ignore[method-assign]


def _reset_peak() -> None:
    gc.collect()
    give_back()
    if platform.system() == "Linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Bytes: the most this process had in memory since `_reset_peak`, or ever where that is unknown."""
    if platform.system() == "Linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
