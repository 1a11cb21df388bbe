"""``sr-hub upscale`` on folders: resumed, killed, interrupted, shared between processes."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_hub import cli
from sr_hub.generator import SRGenerator, save_weights
from sr_hub.images import read_picture

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), 0)


def make_model(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_weights(SRGenerator(scale=4, features=8, blocks=1), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"scale": 4, "features": 8, "blocks": 1}))
    return folder


@pytest.fixture
def run(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object, model: Path = model) -> tuple[int, str, str]:
        code = cli.main(["upscale", *map(str, arguments), "--model", str(model)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def command(model: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "sr_hub.cli", "upscale", *map(str, arguments), "--model", str(model)]


def photos(folder: Path, count: int, side: int = 24) -> Path:
    generator = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"{index % 3}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_is_done_is_left(tmp_path: Path, run: Run) -> None:
    source, target = photos(tmp_path / "in", 4), tmp_path / "out"
    assert run(source, target)[0] == 0
    stamps = {path: path.stat().st_mtime_ns for path in target.rglob("*.png")}
    code, out, _ = run(source, target)
    assert code == 0 and "0 enlarged, 4 done before, 0 failed" in out
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*.png")} == stamps
    assert "4 enlarged, 0 done before" in run(source, target, "--overwrite")[1]


def test_changed_content_settings_model_or_result_redo(tmp_path: Path, run: Run) -> None:
    source, target = photos(tmp_path / "in", 3), tmp_path / "out"
    run(source, target)
    (source / "0" / "0.png").write_bytes((source / "1" / "1.png").read_bytes())
    assert "1 enlarged, 2 done before" in run(source, target)[1]
    assert (target / "0" / "0.png").read_bytes() == (target / "1" / "1.png").read_bytes()
    assert "3 enlarged, 0 done before" in run(source, target, "--precision", "fp32")[1]
    assert "0 enlarged, 3 done before" in run(source, target, "--precision", "fp32", "--tile-size", 9)[1]
    (tmp_path / "other").mkdir()
    other = make_model(tmp_path / "other", 1)
    assert "3 enlarged, 0 done before" in run(source, target, "--precision", "fp32", model=other)[1]
    run(source, target)
    (target / "2" / "2.png").unlink()
    (target / "1" / "1.png").write_bytes(b"cut")
    (target / ".sr-hub" / "0" / "0.png.json").write_text("{")
    assert "3 enlarged, 0 done before" in run(source, target)[1]


def test_every_file_without_a_result_has_a_line(tmp_path: Path, run: Run) -> None:
    source, target = photos(tmp_path / "in", 2), tmp_path / "out"
    (source / "bad.png").write_bytes(b"no picture")
    (source / "notes.txt").write_text("hello")
    code, out, err = run(source, target)
    assert code == 1 and str(target / "errors.jsonl") in out and "bad.png" in err
    lines = [json.loads(line) for line in (target / "errors.jsonl").read_text().splitlines()]
    assert [(line["file"], line["status"]) for line in lines] == [
        ("bad.png", "failed"),
        ("notes.txt", "skipped"),
    ]
    assert "unknown or broken format" in lines[0]["reason"] and lines[1]["reason"] == "not a picture"
    assert run(source, target)[0] == 1  # what failed is tried again
    (source / "bad.png").unlink()
    (source / "notes.txt").unlink()
    assert run(source, target)[0] == 0
    assert not (target / "errors.jsonl").exists()


def test_shards_are_apart_and_whole_together(tmp_path: Path, run: Run) -> None:
    source = photos(tmp_path / "in", 12)
    (source / "bad.png").write_bytes(b"no picture")
    run(source, tmp_path / "whole")
    made = 0
    for index in (1, 2, 3):
        out = run(source, tmp_path / "parts", "--shard", f"{index}/3")[1]
        made += int(out.splitlines()[-1].split()[0])
    assert made == 12
    whole, parts = contents(tmp_path / "whole"), contents(tmp_path / "parts")
    assert whole.pop("errors.jsonl") in [parts.pop(name) for name in list(parts) if name.startswith("errors")]
    assert parts == whole


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3"])
def test_wrong_shards_are_wrong_use(tmp_path: Path, run: Run, text: str) -> None:
    code, _, err = run(photos(tmp_path / "in", 1), tmp_path / "out", f"--shard={text}")
    assert code == 2 and "expected I/N with I from 1 to N" in err


def test_a_shard_of_one_picture_is_refused(tmp_path: Path, run: Run) -> None:
    source = photos(tmp_path / "in", 1) / "0" / "0.png"
    code, _, err = run(source, tmp_path / "b.png", "--shard", "1/2")
    assert code == 2 and "--shard needs a folder" in err


def wait_for(done: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_in_the_middle_and_run_again_gives_the_same_tree(
    tmp_path: Path, run: Run, model: Path
) -> None:
    source = photos(tmp_path / "in", 12, side=100)
    (source / "bad.png").write_bytes(b"no picture")
    run(source, tmp_path / "whole")
    target = tmp_path / "killed"
    for count in (1, 6):
        with subprocess.Popen(
            command(model, source, target), stdout=subprocess.DEVNULL, text=True
        ) as process:
            wait_for(lambda count=count: len(list(target.rglob("*.json"))) >= count, process)  # type: ignore[misc]
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and count <= len(list(target.rglob("*.json"))) < 12
        for path in target.rglob("*.png"):
            assert read_picture(path).pixels.shape == (400, 400, 3)
    (target / "1" / ".0123456789abcdef.partial").write_bytes(b"half")  # in case no kill hit a write
    code, out, _ = run(source, target)
    assert code == 1 and int(out.splitlines()[-1].split()[0]) <= 6
    assert contents(target) == contents(tmp_path / "whole")


def test_an_interrupt_leaves_whole_files_only(tmp_path: Path, model: Path) -> None:
    source, target = photos(tmp_path / "in", 30, side=100), tmp_path / "out"
    with subprocess.Popen(
        command(model, source, target), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: len(list(target.rglob("*.json"))) >= 3, process)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; every file written is whole" in err and "Traceback" not in err
    files = [path for path in target.rglob("*") if path.is_file()]
    results = [path for path in files if path.suffix == ".png"]
    assert 3 <= len(results) < 30
    assert {path.suffix for path in files} == {".png", ".json"}
    for path in results:
        assert read_picture(path).pixels.shape == (400, 400, 3)


def test_two_processes_on_one_folder_give_the_tree_of_one(tmp_path: Path, run: Run, model: Path) -> None:
    source = photos(tmp_path / "in", 12, side=60)
    target = tmp_path / "both"
    processes = [
        subprocess.Popen(command(model, source, target), stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    run(source, tmp_path / "one")
    assert contents(target) == contents(tmp_path / "one")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_of_every_kind_are_one_line_each(tmp_path: Path, model: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    names = [
        "new\nline.png",
        "\u00e9moji\U0001f600.png",
        "-dash.png",
        "a..b..png",
        " .png",
        os.fsdecode(b"\xff\xfe.png"),
    ]
    for name in names:
        Image.new("RGB", (3, 2), "red").save(source / name, format="PNG")
    bad = ["bad\nnews.png", os.fsdecode(b"bad\xff.png")]
    for name in bad:
        (source / name).write_bytes(b"no picture")
    (source / os.fsdecode(b"\xff.txt")).write_bytes(b"text")
    (source / "loop").symlink_to(source)
    (source / "self.png").symlink_to("self.png")
    (source / "nowhere.png").symlink_to("gone.png")
    os.mkfifo(source / "pipe.png")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command(model, source, target), env=environment, capture_output=True, timeout=60)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 1 and "Traceback" not in err
    assert f"{len(names)} enlarged, 0 done before, 4 failed, 1 skipped" in out
    links = [f"{name}.png: a link to a file that is not there" for name in ("nowhere", "self")]
    others = [line for line in (out + err).splitlines() if any(link in line for link in links)]
    assert len(others) == 2
    assert [line for line in err.splitlines() if not line.startswith(f"sr-hub: {source}/bad")] == (
        [line for line in err.splitlines() if line in others]
    )
    assert "bad\\nnews.png: expected an image file, got a file of unknown" in err and "bad\\udcff.png" in err
    for name in names:
        assert read_picture(target / name).pixels.shape == (8, 12, 3)
    lines = [json.loads(line) for line in (target / "errors.jsonl").read_text().splitlines()]
    assert sorted(line["file"] for line in lines if line["status"] == "failed") == sorted(
        [*bad, "nowhere.png", "self.png"]
    )
    assert all("\n" not in line["reason"] for line in lines)


def test_an_output_folder_taken_as_input_is_one_of_pictures(tmp_path: Path, run: Run) -> None:
    run(photos(tmp_path / "in", 3), tmp_path / "out")
    assert "3 enlarged, 0 done before, 0 failed, 0 skipped" in run(tmp_path / "out", tmp_path / "again")[1]


def test_an_output_folder_around_the_input_takes_its_pictures(tmp_path: Path, run: Run) -> None:
    photos(tmp_path / "p" / "2020", 2)
    code, out, _ = run(tmp_path / "p" / "2020", tmp_path / "p")
    assert code == 0 and out.endswith("2 enlarged, 0 done before, 0 failed, 0 skipped\n")
    assert Image.open(tmp_path / "p" / "1" / "1.png").size == (96, 96)


def test_no_result_takes_the_place_of_an_input(tmp_path: Path, run: Run) -> None:
    photos(tmp_path / "p" / "a", 1)  # p/a/0/0.png
    Image.new("RGB", (5, 5)).save(tmp_path / "p" / "a" / "b.png")
    (tmp_path / "p" / "a" / "a").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "p" / "a" / "a" / "b.png")  # would become p/a/b.png
    code, _, err = run(tmp_path / "p" / "a", tmp_path / "p")
    assert code == 1 and "which is a picture of the input" in err
    assert Image.open(tmp_path / "p" / "a" / "b.png").size == (5, 5)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path, run: Run) -> None:
    photos(tmp_path / "album", 1)
    photos(tmp_path / "in", 1)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "album")
    (tmp_path / "album" / "up").symlink_to(tmp_path / "album")
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in")
    code, out, _ = run(tmp_path / "in", tmp_path / "out")
    assert code == 0 and out.endswith("2 enlarged, 0 done before, 0 failed, 0 skipped\n")
    assert sorted(name for name in contents(tmp_path / "out") if name.endswith(".png")) == [
        "0/0.png",
        "linked/0/0.png",
    ]


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path, run: Run) -> None:
    names = ["anna", "ben", "cleo"]
    for name in names:
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("RGB", (4, 3)).save(tmp_path / "in" / name / "a.png")
    for name in names:
        for other in set(names) - {name}:
            (tmp_path / "in" / name / other).symlink_to(tmp_path / "in" / other)
    code, out, _ = run(tmp_path / "in", tmp_path / "out")
    assert code == 0 and "3 enlarged, 0 done before, 0 failed, 6 skipped" in out
    assert sorted(name for name in contents(tmp_path / "out") if name.endswith(".png")) == [
        f"{name}/a.png" for name in names
    ]
    assert "anna/ben/" in (tmp_path / "out" / "errors.jsonl").read_text()


def test_folders_elsewhere_that_link_to_each_other_end(tmp_path: Path, run: Run) -> None:
    for name in ("one", "two"):
        photos(tmp_path / name, 1)
    (tmp_path / "one" / "two").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "one").symlink_to(tmp_path / "one")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "one")
    (tmp_path / "one" / "back").symlink_to(tmp_path / "in")
    code, out, _ = run(tmp_path / "in", tmp_path / "out")
    assert code == 0 and out.endswith("2 enlarged, 0 done before, 0 failed, 0 skipped\n")


def test_links_that_lead_nowhere_are_told_only_of_pictures_of_the_input(tmp_path: Path, run: Run) -> None:
    photos(tmp_path / "in", 1)
    (tmp_path / "in" / ".#0.png").symlink_to("user@host.1:2")  # an editor's lock
    (tmp_path / "in" / "notes").symlink_to("gone")
    (tmp_path / "in" / "out").mkdir()
    (tmp_path / "in" / "out" / "q.png").symlink_to("gone.png")
    code, out, _ = run(tmp_path / "in", tmp_path / "in" / "out")
    assert code == 0 and out.endswith("1 enlarged, 0 done before, 0 failed, 0 skipped\n")


def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "in", 1)
    (tmp_path / "in" / "closed").mkdir()
    read = os.scandir

    def closed(folder: Path) -> object:  # what root never meets
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied")
        return read(folder)

    monkeypatch.setattr(os, "scandir", closed)
    code, out, _ = run(tmp_path / "in", tmp_path / "out")
    assert code == 1 and "1 enlarged, 0 done before, 1 failed, 0 skipped" in out
    assert json.loads((tmp_path / "out" / "errors.jsonl").read_text()) == {
        "file": "closed/",
        "status": "failed",
        "reason": "a folder that cannot be read: Permission denied",
    }


def test_the_longest_names_are_noted_as_done(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "in" / f"{'x' * 251}.png")
    assert run(tmp_path / "in", tmp_path / "out")[1].endswith(
        "1 enlarged, 0 done before, 0 failed, 0 skipped\n"
    )
    assert run(tmp_path / "in", tmp_path / "out")[1].endswith(
        "0 enlarged, 1 done before, 0 failed, 0 skipped\n"
    )


def test_stereo_pictures_of_a_folder_are_taken(tmp_path: Path, run: Run) -> None:
    first, second = (Image.new("RGB", (6, 5), color) for color in ("red", "blue"))
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in" / "a.mpo", save_all=True, append_images=[second])
    assert run(tmp_path / "in", tmp_path / "out")[0] == 0
    assert Image.open(tmp_path / "out" / "a.mpo.png").size == (24, 20)


def test_names_that_the_terminal_cannot_show_stop_nothing(tmp_path: Path, model: Path) -> None:
    photos(tmp_path / "in", 1)
    os.rename(tmp_path / "in" / "0", tmp_path / "in" / "写真")
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        command(model, tmp_path / "in", tmp_path / "out"), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and r"\u5199\u771f" in done.stdout and "1 enlarged" in done.stdout


def test_terminated_on_one_picture_leaves_nothing_half(tmp_path: Path, model: Path) -> None:
    photos(tmp_path / "in", 1, side=400)
    (tmp_path / "out").mkdir()
    arguments = command(model, tmp_path / "in" / "0" / "0.png", tmp_path / "out" / "a.png", "--tile-size", 16)
    arguments += ["--max-memory", "1M"]
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as process:
        wait_for(lambda: any((tmp_path / "out").iterdir()), process)
        process.terminate()
    assert process.returncode != 0 and not any((tmp_path / "out").iterdir())


def test_places_that_cannot_be_written_fail_their_pictures_only(tmp_path: Path, run: Run) -> None:
    source, target = photos(tmp_path / "in", 4), tmp_path / "out"
    target.mkdir()
    (target / "1").write_text("a file in the place of a folder")
    (target / "2" / "2.png").mkdir(parents=True)
    code, out, err = run(source, target)
    assert code == 1 and "2 enlarged, 0 done before, 2 failed" in out
    assert "2.png: cannot be written" in err and f"{target / '1'}: cannot be made a folder" in err
    assert not list(target.rglob("*.partial"))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit to the size of files to set")
def test_a_full_disk_fails_what_does_not_fit_and_leaves_nothing_of_it(tmp_path: Path, model: Path) -> None:
    source, target = photos(tmp_path / "in", 2, side=80), tmp_path / "out"
    Image.new("RGB", (4, 4)).save(source / "small.png")
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)); "
    call = limit + f"from sr_hub.cli import main; sys.exit(main({command(model, source, target)[3:]!r}))"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "1 enlarged, 0 done before, 2 failed" in done.stdout and "File too large" in done.stderr
    pictures = [path.name for path in target.rglob("*") if path.is_file() and ".sr-hub" not in path.parts]
    assert sorted(pictures) == ["errors.jsonl", "small.png"]


def test_what_the_decoder_logs_is_not_shown(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    # A TIFF file of 60000 samples per pixel, of which Pillow logs an error.
    entries = [(256, 1), (257, 1), (277, 60000)]
    directory = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    (tmp_path / "in" / "a.tif").write_bytes(head + directory + bytes(4))
    done = subprocess.run(command(model, tmp_path / "in", tmp_path / "out"), capture_output=True, text=True)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["sr-hub"]
