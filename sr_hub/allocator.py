"""Keeps the C library from giving memory back to the system between the layers of a network."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

LARGEST_KEPT_BLOCK = 2**25
"""Bytes: glibc maps larger blocks apart, whatever it is told, and unmaps them when they are freed."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_OWN_TRIM_THRESHOLD = 2 * LARGEST_KEPT_BLOCK  # the most that glibc itself adapts it to
_HELD = 2**30


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, blocks up to `LARGEST_KEPT_BLOCK` are taken from memory that was used before.

    glibc gives the end of the heap back as soon as enough of it is free, so that a network's next layer gets
    new pages, each of which costs a fault and is filled with zeros: about 8 % of the time of a network of 48
    features on 256x256 pixels. Afterwards the thresholds are the highest that glibc sets by itself, and the
    memory is given back. Does nothing where the C library is another.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK)
    libc.mallopt(_TRIM_THRESHOLD, _HELD)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _LARGEST_OWN_TRIM_THRESHOLD)
        libc.malloc_trim(_LARGEST_OWN_TRIM_THRESHOLD)


def give_back() -> None:
    """Gives all memory that is free to the system, of every thread's arena.

    For programs that live long and work in many threads: each keeps what it once needed otherwise.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
