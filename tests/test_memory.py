"""How much memory is free."""

from pathlib import Path

import pytest
import torch

from sr_hub.memory import available_memory, is_memory_error, parse_bytes, with_shrinking_tiles


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"}
V2 = {"sys/fs/cgroup/memory.max": "3000000\n", "sys/fs/cgroup/memory.current": "1000000\n"}
V1 = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "500000",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "600000",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MEMINFO, 5_120_000),
        (MEMINFO | V2, 2_000_000),
        (MEMINFO | V2 | {"sys/fs/cgroup/memory.max": "max"}, 5_120_000),
        (MEMINFO | V1, 0),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert available_memory(system(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1500M", 1500 * 2**20), ("2G", 2**31), ("0.5 GiB", 2**29), ("7", 7), ("3kb", 3072)],
)
def test_amounts(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1G", "G", "2 apples", "1e9"])
def test_wrong_amounts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an amount of memory such as 1500M or 2G"):
        parse_bytes(text)


def test_what_says_that_memory_is_short() -> None:
    assert is_memory_error(MemoryError())
    assert is_memory_error(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_memory_error(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_memory_error(RuntimeError("shapes do not fit"))
    assert not is_memory_error(ValueError("memory"))


def test_a_real_shortage_is_survived() -> None:
    def run(size: int) -> int:
        return torch.empty(2**60 if size > 30 else 1).numel()

    said: list[int] = []
    assert with_shrinking_tiles(run, 100, said.append) == (1, 25)
    assert said == [50, 25]
