"""Files that appear whole or not at all, also when the process is killed or another one works beside it."""

import contextlib
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

if sys.platform != "win32":
    import fcntl

_LEFTOVER = re.compile(r"\.[0-9a-f]{16}\.partial")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of `path` when the block ends without an error.

    It is written beside its place under another name, put on the disk and renamed.

    Raises:
        OSError: If it cannot be written.
    """
    temporary, file = _open_beside(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform != "win32":
                os.replace(temporary, path)  # still locked, so that nobody takes it for a leftover
        if sys.platform == "win32":  # which cannot rename an open file
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Refuses, before any work, a place where no file can be written.

    Raises:
        FileNotFoundError: If its folder is missing.
        IsADirectoryError: If a folder is there.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write, got the folder {path}")


def remove_leftovers(folder: Path) -> int:
    """Delete what killed processes left unfinished in `folder`, not deeper; how many files that was.

    Files that another process is writing right now are left alone.
    """
    count = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name):
            with contextlib.suppress(OSError), open(path, "rb") as file:  # gone or in use by now
                if _lock(file):
                    path.unlink()
                    count += 1
    return count


@contextlib.contextmanager
def sole_user(path: Path) -> Iterator[None]:
    """While the block runs, no other process gets to run one of the same ``path``, a file made for this.

    The lock ends with the process, however it dies. Windows, and file systems without locks, keep none.

    Raises:
        BlockingIOError: If another process is in such a block.
    """
    with open(path, "a+b") as file:
        if not _lock(file):
            raise BlockingIOError(f"{path.parent} is in use by another process")
        yield


def _open_beside(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
        file = open(temporary, "x+b")  # noqa: SIM115  # the caller closes it
        # `remove_leftovers` elsewhere may have seen the file before it was locked: then it is gone.
        if _lock(file) and temporary.exists():
            return temporary, file
        file.close()
        temporary.unlink(missing_ok=True)
        time.sleep(0.001)


def _lock(file: IO[bytes]) -> bool:
    """Whether the lock, which ends with the process however it dies, could be had."""
    if sys.platform == "win32":  # which by itself refuses to delete a file that is open
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            return False
        # A file system without locks: a file counts as left over when nobody wrote to it for a day.
        return "+" in file.mode or time.time() - os.fstat(file.fileno()).st_mtime > 86400
    return True
