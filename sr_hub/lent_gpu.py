"""A GPU that a Space of the Hub lends for one picture at a time (ZeroGPU).

What the package `spaces` marks runs in a process of its own, which alone has the GPU: arguments and results
are pickled on the way, and errors lose their words. So what is marked here is a generator, which hands out
progress and at last the result, or the error as a value.
"""

import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from sr_hub.enlarging import Enlarger, Loaded, Made
from sr_hub.folders import Job
from sr_hub.inference import Progress

try:
    from spaces import GPU
except ImportError:  # everywhere but on the Hub
    GPU = None


class _Unwanted(Exception):  # noqa: N818  # nothing went wrong
    pass


def is_lent() -> bool:
    """Whether this program is a Space that gets its GPU lent, by what the Hub says in the environment."""
    return GPU is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true")


def make_on_lent_gpu(
    enlarger: Enlarger, job: Job, loaded: Loaded | None, progress: Progress, *, hold: bool = False
) -> Made | None:
    """`Enlarger.make` in the process that has the GPU.

    The arguments and errors are those of `Enlarger.make`; ``loaded`` must hold its samples, as an open file
    cannot be handed over. What ``progress`` raises stops the work after the tile that is under way.
    """
    steps = _marked(enlarger, job, loaded, hold)
    try:
        for kind, value in steps:
            if kind == "made":
                return value
            if kind == "error":
                raise value
            progress(*value)
    finally:
        steps.close()
    raise RuntimeError("the process with the GPU ended without a result")


def _steps(enlarger: Enlarger, job: Job, loaded: Loaded | None, hold: bool) -> Iterator[tuple[str, Any]]:
    """``("progress", (done, total))`` for each tile, last ``("made", result)`` or ``("error", error)``."""
    if torch.cuda.is_available():
        enlarger.generator.to("cuda")
    said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    unwanted = threading.Event()

    def report(done: int, total: int) -> None:
        if unwanted.is_set():
            raise _Unwanted
        said.put(("progress", (done, total)))

    def work() -> None:
        try:
            said.put(("made", enlarger.make(job, loaded, report, hold=hold)))
        except Exception as error:
            said.put(("error", error))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        kind = "progress"
        while kind == "progress":
            kind, value = said.get()
            yield kind, value
    finally:
        unwanted.set()
        thread.join()


_marked: Callable[..., Any] = _steps if GPU is None else GPU(_steps)
