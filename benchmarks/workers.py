"""How much faster two workers are than one: pictures of a folder in shards, and training in processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import ROOT

_SIDE = 480  # of the pictures, in pixels
_STEPS, _LOG_EVERY = 25, 5


def measure_workers(
    folder: Path, *, pictures: int = 16, counts: Sequence[int] = (1, 2)
) -> list[dict[str, float]]:
    """Both paths with so many workers of one thread each, and once with one worker of as many threads.

    Args:
        folder: For pictures and runs.
        pictures: In the folder, of 480x480. Sixteen fall into two shards of eight.
        counts: Of workers.

    Returns:
        For each: ``workers``, ``threads`` of each, ``folder_seconds`` for all pictures, start of the
        processes included, and ``steps_per_second`` of training at an equal batch over all processes.
    """
    photos = folder / "photos"
    make_pictures(photos, pictures)
    shapes = [(count, 1) for count in counts] + [(1, count) for count in counts if count > 1]
    return [
        {
            "workers": workers,
            "threads": threads,
            "folder_seconds": _time_folder(photos, folder / f"large{workers}x{threads}", workers, threads),
            "steps_per_second": _training_rate(photos, folder / f"run{workers}x{threads}", workers, threads),
        }
        for workers, threads in shapes
    ]


def workers_table(rows: Sequence[dict[str, float]]) -> str:
    """Markdown: efficiency is the speed-up over one worker of one thread, over the threads in all."""
    lines = [
        "| workers x threads | folder, s | efficiency | training, steps/s | efficiency |",
        "|---:|---:|---:|---:|---:|",
    ]
    alone = rows[0]
    for row in rows:
        total = row["workers"] * row["threads"]
        lines.append(
            f"| {row['workers']} x {row['threads']} | {row['folder_seconds']:.1f} "
            f"| {alone['folder_seconds'] / row['folder_seconds'] / total:.0%} "
            f"| {row['steps_per_second']:.2f} "
            f"| {row['steps_per_second'] / alone['steps_per_second'] / total:.0%} |"
        )
    return "\n".join(lines)


def make_pictures(folder: Path, count: int) -> None:
    """Writes pictures with structure at every size, as photos have."""
    folder.mkdir(parents=True)
    for seed in range(count):
        random = np.random.default_rng(seed)
        total = np.zeros((_SIDE, _SIDE, 3), np.float32)
        for side in (6, 20, 60, 160, _SIDE):
            layer = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
            total += np.asarray(layer.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float32) / 5
        Image.fromarray(total.round().astype(np.uint8)).save(folder / f"{seed:03}.png")


def _time_folder(photos: Path, target: Path, workers: int, threads: int) -> float:
    command = [sys.executable, "-m", "sr_hub.cli", "upscale", str(photos), str(target)]
    started = time.perf_counter()
    running = [
        _start([*command, *(["--shard", f"{index + 1}/{workers}"] if workers > 1 else [])], threads)
        for index in range(workers)
    ]
    for process in running:
        _finish(process)
    seconds = time.perf_counter() - started
    made, wanted = len(list(target.glob("*.png"))), len(list(photos.iterdir()))
    if made != wanted:
        raise RuntimeError(f"expected {wanted} pictures of {workers} workers, got {made}")
    return seconds


def _training_rate(photos: Path, run: Path, workers: int, threads: int) -> float:
    launch = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"] if workers > 1 else []
    )
    settings = {
        "data": photos,
        "out": run,
        "pixel-steps": _STEPS,
        "adversarial-steps": 0,
        "blocks": 6,
        "validate-every": 0,
        "log-every": _LOG_EVERY,
        "threads": threads,
    }
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    _finish(_start([sys.executable, *launch, "train.py", *flags], threads))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [(line["step"], line["seconds"]) for line in lines if "rate" in line]
    (first, started), (last, stopped) = logged[0], logged[-1]
    return float((last - first) / (stopped - started))


def _start(command: list[str], threads: int) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finish(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with code {process.returncode}: {errors.strip()[-300:]}")
