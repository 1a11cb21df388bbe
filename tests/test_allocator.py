"""Freed memory stays at hand inside the context, and is given back after it."""

import subprocess
import sys

import pytest

from sr_hub import allocator
from sr_hub.allocator import freed_memory_kept

PROGRAM = """
import resource, sys
import numpy as np
from sr_hub.allocator import freed_memory_kept

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def layers():
    before = faults()
    for _ in range(10):
        blocks = [np.ones(2**24, np.uint8) for _ in range(8)]
        del blocks
    return faults() - before

outside = layers()
start = resident()
with freed_memory_kept():
    layers()
    print(outside, layers(), resident() - start, end=" ")
print(resident() - start)
"""


@pytest.mark.skipif(allocator._glibc() is None, reason="needs glibc")
def test_pages_are_used_again() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    outside, inside, held, after = (int(number) for number in run.stdout.split())
    pages = 10 * 8 * 2**24 / 4096
    assert outside > 0.5 * pages / 16  # 16: pages may be huge where the system makes them so by itself
    assert inside < 0.05 * outside
    assert held >= 8 * 2**24 - 2**20
    assert after < 2**26 + 2**23  # glibc's own threshold, and some


def test_nothing_is_done_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    allocator._glibc.cache_clear()
    try:
        with freed_memory_kept():
            assert allocator._glibc() is None
    finally:
        allocator._glibc.cache_clear()
