"""Time, memory and share of the machine's rates of ``upscale``, from small pictures to large ones."""

import copy
import gc
import platform
import resource
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import make_convolution, make_product, seconds_of
from sr_hub.allocator import freed_memory_kept
from sr_hub.generator import SRGenerator
from sr_hub.inference import choose_dtype, upscale

SIDES = (64, 128, 256, 512, 1024, 2048, 4096)
_LARGEST_CONVOLUTION = 2048  # LR pixels a side; beyond, its rate at this side is taken
_PRODUCT = 2048


@dataclass(frozen=True)
class Point:
    """``upscale`` of ``side`` x ``side`` 8-bit pixels. Times are medians of ``runs`` interleaved runs.

    ``seconds`` is the whole call, ``network_seconds`` the part of it inside the network, ``forward_seconds``
    the network on the whole picture at once (None where that is too large). The rates are FLOP/s: of the
    network inside the call, of one 3x3 convolution of the trunk's width on a picture of this side alone, and
    of a product of 2048 x 2048 matrices.
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

    def to_json(self) -> dict[str, Any]:
        """Its fields, and the ratios that matter."""
        return asdict(self) | {
            "seconds_per_megapixel": self.seconds / (self.side**2 / 1e6),
            "share_of_convolution": self.network_rate / self.convolution_rate,
            "share_of_matrix_product": self.network_rate / self.matrix_rate,
            "call_over_network": self.seconds / self.network_seconds,
        }


def measure_scaling(
    generator: SRGenerator, sides: Sequence[int] = SIDES, *, seconds_a_side: float = 8.0
) -> list[Point]:
    """One point for each side, smallest first, in the precision that `upscale` chooses by itself."""
    points: list[Point] = []
    for side in sides:
        expected = points[-1].seconds * (side / points[-1].side) ** 2 if points else 0.05
        runs = max(1, min(15, int(seconds_a_side / expected)))
        points.append(_measure(generator, side, runs))
    return points


def _measure(generator: SRGenerator, side: int, runs: int) -> Point:
    features = generator.head.out_channels
    dtype = choose_dtype(torch.device("cpu"), "auto")
    work = 2.0 * side**2 * sum(weight.numel() for weight in generator.parameters() if weight.ndim == 4)
    lr = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    product, product_work = make_product(_PRODUCT, dtype)
    times: dict[str, list[float]] = {name: [] for name in ("call", "network", "conv", "product")}
    with torch.inference_mode(), freed_memory_kept():
        upscale(generator, lr[:64, :64])
        _reset_peak()
        with timed_residual() as inside:
            first = seconds_of(lambda: upscale(generator, lr))
        peak = _peak()
        if runs == 1:  # so large that the first is as good as any
            times["call"].append(first)
            times["network"].append(sum(inside))
        conv, conv_work = make_convolution(features, min(side, _LARGEST_CONVOLUTION), dtype)
        conv()
        for _ in range(runs):
            if runs > 1:
                with timed_residual() as inside:
                    times["call"].append(seconds_of(lambda: upscale(generator, lr)))
                times["network"].append(sum(inside))
            times["conv"].append(seconds_of(conv))
            times["product"].append(seconds_of(product))
    median = {name: statistics.median(values) for name, values in times.items()}
    return Point(
        side=side,
        runs=runs,
        seconds=median["call"],
        network_seconds=median["network"],
        forward_seconds=_forward_seconds(generator, lr, dtype, runs) if side <= 1024 else None,
        peak_memory=peak,
        network_rate=work / median["network"],
        convolution_rate=conv_work / median["conv"],
        matrix_rate=product_work / median["product"],
    )


def _forward_seconds(generator: SRGenerator, pixels: np.ndarray, dtype: torch.dtype, runs: int) -> float:
    """``generator(lr)`` alone, on the whole picture."""
    network = copy.deepcopy(generator).to(dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    lr = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    lr = lr.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), freed_memory_kept():
        network(lr)
        return statistics.median(seconds_of(lambda: network(lr)) for _ in range(min(runs, 5)))


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
    if platform.system() == "Linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Bytes: the most this process had in memory since `_reset_peak`, or ever where that is unknown."""
    if platform.system() == "Linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
