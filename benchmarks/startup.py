"""Where the time of a cold ``sr-hub upscale`` goes, from the start of the process to the file written."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import ROOT

SIDE = 256

_STAGES = """
import json, sys, time
marks = [("interpreter", time.time())]
def mark(name):
    marks.append((name, time.time()))
import torch
mark("import torch")
import sr_hub.cli_upscale
mark("import the rest")
from sr_hub.generator import SRGenerator
generator = SRGenerator.from_pretrained(**json.loads(sys.argv[3]))
mark("load the model")
from sr_hub.images import read_picture
picture = read_picture(sys.argv[1])
mark("read the picture")
from sr_hub.inference import upscale_picture
result = upscale_picture(generator, picture)
mark("network, first time")
from sr_hub.encoding import write_picture
write_picture(result, sys.argv[2])
mark("write the file")
again = time.time()
upscale_picture(generator, picture)
again = time.time() - again
start = float(sys.argv[4])
stages = {}
for (name, stop), before in zip(marks, [start] + [stop for _, stop in marks[:-1]]):
    stages[name] = stop - before
print(json.dumps({"stages": stages, "network_again": again}))
"""

_COMMANDS = {
    "python": "pass",
    "import torch": "import torch",
    "import sr_hub": "import sr_hub; sr_hub.SRGenerator, sr_hub.upscale",
}


def measure_startup(folder: Path, model: str | None = None, *, runs: int = 3) -> dict[str, Any]:
    """Medians in seconds over interleaved cold processes.

    Args:
        folder: For the pictures.
        model: Name of the model; None for the default.
        runs: Processes of each kind.

    Returns:
        ``processes``: whole processes, the last being ``sr-hub upscale`` itself; ``stages``: its parts, one
        after the other; ``network_again``: a second picture in the same process; ``over_torch``: how many
        times ``import torch`` the command takes, less the network.
    """
    source, target = folder / "in.png", folder / "out.png"
    rows, columns = np.mgrid[:SIDE, :SIDE]
    pixels = np.stack([rows, columns, (rows * columns) % 256], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(source)
    chosen = [] if model is None else ["--model", model]
    commands = {name: ["-c", program] for name, program in _COMMANDS.items()}
    commands["sr-hub upscale"] = ["-m", "sr_hub.cli", "upscale", str(source), str(target), *chosen]
    processes: dict[str, list[float]] = {name: [] for name in commands}
    stages: list[dict[str, Any]] = []
    options = json.dumps({} if model is None else {"name": model})
    for _ in range(runs):
        for name, command in commands.items():
            target.unlink(missing_ok=True)
            started = time.perf_counter()
            _run(command)
            processes[name].append(time.perf_counter() - started)
        arguments = [str(source), str(target), options, repr(time.time())]
        stages.append(json.loads(_run(["-c", _STAGES, *arguments])))
    medians = {name: statistics.median(times) for name, times in processes.items()}
    parts = {name: statistics.median(run["stages"][name] for run in stages) for name in stages[0]["stages"]}
    again = statistics.median(run["network_again"] for run in stages)
    return {
        "side": SIDE,
        "runs": runs,
        "processes": medians,
        "stages": parts,
        "network_again": again,
        "over_torch": (medians["sr-hub upscale"] - parts["network, first time"]) / medians["import torch"],
    }


def _run(command: list[str]) -> str:
    run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{command[:3]} ended with code {run.returncode}: {run.stderr.strip()[-300:]}")
    return run.stdout
