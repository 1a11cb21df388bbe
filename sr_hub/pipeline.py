"""Many files one after the other: while one is enlarged, the next are read and the last are written."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Read = TypeVar("Read")
Made = TypeVar("Made")
Result = TypeVar("Result")

FAILURES = (ValueError, TypeError, OSError, RuntimeError, MemoryError)
"""What one picture may raise without an end to the others."""


@dataclass(frozen=True)
class Stages(Generic[Job, Read, Made, Result]):
    """What is done to each job.

    Attributes:
        weigh: Bytes that the job takes in memory, about.
        read: In a thread of its own.
        make: In the calling thread, one after the other.
        write: In one of several threads.
    """

    weigh: Callable[[Job], int]
    read: Callable[[Job], Read]
    make: Callable[[Job, Read], Made]
    write: Callable[[Job, Made], Result]


def process(
    jobs: Iterable[Job],
    stages: Stages[Job, Read, Made, Result],
    *,
    memory: int,
    writers: int = 2,
    ahead: int = 2,
) -> Iterator[tuple[Job, Result | None, Exception | None]]:
    """Read, make and write every job, overlapped; yields each job when it is done, with what
    `write` returned or with the error.

    When the iterator is closed, or interrupted, what is being written is written to its end and nothing else
    is begun.

    Args:
        jobs: In the order in which they are read and made.
        stages: An error of `FAILURES` in any of them ends its job only.
        memory: Bytes that all jobs under way may weigh together; one alone may weigh more.
        writers: Threads that write.
        ahead: Jobs that are read before their turn.
    """
    waiting = deque(jobs)
    reading: deque[tuple[Job, int, Future[Read]]] = deque()
    writing: deque[tuple[Job, int, Future[Result]]] = deque()
    with _threads(1) as readers, _threads(writers) as encoders:
        while waiting or reading or writing:
            used = sum(weight for _, weight, _ in (*reading, *writing))
            while waiting and len(reading) < ahead:
                weight = stages.weigh(waiting[0])
                if used and used + weight > memory:
                    break
                job = waiting.popleft()
                reading.append((job, weight, readers.submit(stages.read, job)))
                used += weight
            if writing and (not reading or writing[0][2].done() or len(writing) > writers):
                job, _, written = writing.popleft()
                try:
                    result = written.result()
                except FAILURES as error:
                    yield job, None, error
                else:
                    yield job, result, None
            elif reading:
                job, weight, read = reading.popleft()
                try:
                    made = stages.make(job, read.result())
                except FAILURES as error:
                    yield job, None, error
                else:
                    writing.append((job, weight, encoders.submit(stages.write, job, made)))
                    del made


class _threads(ThreadPoolExecutor):  # noqa: N801  # used as a context, like a function
    """A pool that, at its end, finishes what has begun and drops the rest."""

    def __exit__(self, *error: object) -> None:
        self.shutdown(wait=True, cancel_futures=True)
