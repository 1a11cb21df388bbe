"""What a measurement ran on, and how fast that machine multiplies."""

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent


def describe() -> dict[str, str | int]:
    """Date, commit, CPU and versions."""
    facts: dict[str, str | int] = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in ("torch", "numpy", "pillow"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "unknown"
    return facts


def as_sentence(facts: dict[str, str | int]) -> str:
    """The same in one line."""
    return (
        f"{facts['date']}, commit {facts['commit']}, {facts['cpu']}, {facts['cores']} cores, "
        f"{facts['threads']} threads, Python {facts['python']}, torch {facts['torch']}, "
        f"Pillow {facts['pillow']}."
    )


def seconds_of(function: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def make_convolution(features: int, side: int, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A 3x3 convolution of a trunk's width on ``side`` x ``side`` pixels alone, and its FLOP."""
    conv = torch.nn.Conv2d(features, features, 3, padding=1).to(dtype)
    conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    x = torch.rand(1, features, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return lambda: conv(x), 2.0 * conv.weight.numel() * side**2


def make_product(side: int, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """A product of two square matrices, and its FLOP."""
    a, b = torch.rand(side, side).to(dtype), torch.rand(side, side).to(dtype)
    return lambda: a @ b, 2.0 * side**3


def _commit() -> str:
    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = any(not line.startswith("??") for line in git("status", "--porcelain", "sr_hub").splitlines())
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
