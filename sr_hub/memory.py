"""How much memory is free, and running on with less when it is short."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

SMALLEST_TILE = 16
_UNKNOWN = 2**32
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take without swapping, containers' limits included.

    4 GiB where the system does not tell.

    Args:
        root: Where the system's files are, for tests.
    """
    free = [_meminfo(root / "proc" / "meminfo")]
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        folder = root / "sys" / "fs" / "cgroup"
        limits = [_number(folder / name) for name in (limit, used)]
        if limits[0] is not None and limits[1] is not None:
            free.append(max(0, limits[0] - limits[1]))
    return min((value for value in free if value is not None), default=_UNKNOWN)


def parse_bytes(text: str) -> int:
    """``"1500M"`` or ``"2G"`` in bytes; units are powers of 1024.

    Raises:
        ValueError: If the text is no positive amount.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise ValueError(f"expected an amount of memory such as 1500M or 2G, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def is_memory_error(error: BaseException) -> bool:
    """Whether it says that memory is short; PyTorch says so with a RuntimeError on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "memory" in str(error)


def with_shrinking_tiles(
    run: Callable[[int], Result], tile_size: int, say: Callable[[int], None] | None = None
) -> tuple[Result, int]:
    """Call `run` with the tile size, and again with half of it as often as memory is short.

    Args:
        run: Does the whole work with tiles of the size it is given.
        tile_size: The first size.
        say: Called with each smaller size before it is tried.

    Returns:
        What `run` returned, and the size with which it did.

    Raises:
        MemoryError: If memory is short with the smallest tiles, too.
    """
    while True:
        try:
            return run(tile_size), tile_size
        except Exception as error:
            if not is_memory_error(error):
                raise
            if tile_size <= SMALLEST_TILE:
                raise MemoryError(
                    f"memory is short even with tiles of {tile_size} pixels: {str(error).splitlines()[0]}"
                ) from error
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # outside the handler, whose traceback keeps the tensors alive
        tile_size = max(SMALLEST_TILE, tile_size // 2)
        if say is not None:
            say(tile_size)


def _meminfo(path: Path) -> int | None:
    if path.is_file():
        match = re.search(r"MemAvailable:\s+(\d+) kB", path.read_text())
        return int(match[1]) * 1024 if match else None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS: what it has, free or not
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
