"""Files that appear whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sr_hub.whole_files import remove_leftovers, whole_file

HALF = """
import sys, time
from pathlib import Path
from sr_hub.whole_files import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    time.sleep(60)
"""


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with whole_file(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), whole_file(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_processes_are_removed_and_work_in_progress_is_not(tmp_path: Path) -> None:
    for name in (".hidden.partial", "a.partial", ".0123456789abcdef.partially"):
        (tmp_path / name).write_bytes(b"the user's own")
    with subprocess.Popen(
        [sys.executable, "-c", HALF, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "written\n"
        assert remove_leftovers(tmp_path) == 0
        assert len(list(tmp_path.iterdir())) == 4
        os.kill(writer.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while remove_leftovers(tmp_path) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(list(tmp_path.iterdir())) == 3
    assert not (tmp_path / "a").exists()


def test_a_missing_folder_has_no_leftovers(tmp_path: Path) -> None:
    assert remove_leftovers(tmp_path / "none") == 0
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "none" / "a"):
        pass
