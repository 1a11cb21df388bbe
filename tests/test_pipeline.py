"""Reading, making and writing beside each other."""

import threading
import time
from collections.abc import Callable

import pytest

from sr_hub.pipeline import Stages, process


def stages(
    read: Callable[[int], int] = lambda job: job,
    make: Callable[[int, int], int] = lambda job, value: 10 * value,
    write: Callable[[int, int], int] = lambda job, value: value + 1,
    weigh: Callable[[int], int] = lambda job: 1,
) -> Stages[int, int, int, int]:
    return Stages(weigh, read, make, write)


def test_every_job_goes_through_all_stages() -> None:
    results = {job: result for job, result, _ in process(range(20), stages(), memory=100)}
    assert results == {job: 10 * job + 1 for job in range(20)}


@pytest.mark.parametrize("stage", ["read", "make", "write"])
def test_an_error_ends_its_job_only(stage: str) -> None:
    def fail(job: int, value: int = 0) -> int:
        if job == 3:
            raise ValueError("three")
        return value

    errors = {job: error for job, _, error in process(range(6), stages(**{stage: fail}), memory=100)}
    assert {job for job, error in errors.items() if error} == {3} and len(errors) == 6
    assert str(errors[3]) == "three"


def test_stages_overlap() -> None:
    def wait(job: int, value: int = 0) -> int:
        time.sleep(0.02)
        return value

    started = time.perf_counter()
    assert len(list(process(range(20), stages(wait, wait, wait), memory=100))) == 20
    assert time.perf_counter() - started < 0.8  # 1.2 one after the other, 0.44 overlapped


@pytest.mark.parametrize(("memory", "most"), [(3, 3), (1, 1), (0, 1)])
def test_jobs_under_way_weigh_no_more_than_allowed(memory: int, most: int) -> None:
    lock, under_way, seen = threading.Lock(), [0], [0]

    def read(job: int) -> int:
        with lock:
            under_way[0] += 1
            seen[0] = max(seen[0], under_way[0])
        return job

    def write(job: int, value: int) -> int:
        time.sleep(0.002)
        with lock:
            under_way[0] -= 1
        return value

    assert len(list(process(range(20), stages(read, write=write), memory=memory, writers=4, ahead=4))) == 20
    assert seen[0] == most


def test_an_interrupt_finishes_what_is_being_written_and_begins_nothing() -> None:
    begun, finished = [], []

    def write(job: int, value: int) -> int:
        begun.append(job)
        time.sleep(0.05)
        finished.append(job)
        return value

    def make(job: int, value: int) -> int:
        if job == 2:
            time.sleep(0.01)
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        list(process(range(100), stages(make=make, write=write), memory=1000))
    assert begun == finished == [0, 1]
    time.sleep(0.06)
    assert begun == [0, 1]


def test_unexpected_errors_are_not_swallowed() -> None:
    def make(job: int, value: int) -> int:
        raise KeyError("a mistake in the program")

    with pytest.raises(KeyError):
        list(process(range(3), stages(make=make), memory=10))
