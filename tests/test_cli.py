"""The command line: files, folders, exit codes, one sentence instead of a traceback."""

import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_hub import cli, cli_upscale, enlarging
from sr_hub.encoding import write_picture
from sr_hub.generator import SRGenerator, save_weights
from sr_hub.images import Picture, read_picture
from sr_hub.inference import upscale

Result = tuple[int, str, str]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    save_weights(SRGenerator(scale=4, features=8, blocks=2), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"scale": 4, "features": 8, "blocks": 2}))
    return folder


@pytest.fixture
def run(model: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``sr-hub upscale`` with the tiny model: exit code, stdout, stderr."""

    def call(*arguments: object) -> Result:
        code = cli.main(["upscale", *map(str, arguments), "--model", str(model)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


def picture(path: Path, height: int = 6, width: int = 7, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def tree(folder: Path) -> list[str]:
    """Files of a folder, less our own records."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if ".sr-hub" not in path.parts)


# One picture


def test_a_file_is_enlarged_as_in_python(tmp_path: Path, run: Run, model: Path) -> None:
    source = picture(tmp_path / "a.png", dpi=(72, 72))
    code, out, err = run(source, tmp_path / "b.png")
    assert code == 0 and err == ""
    assert out.count("model ") == 1 and "on cpu" in out and "7x6 to 28x24" in out
    result = read_picture(tmp_path / "b.png")
    expected = upscale(SRGenerator.from_pretrained(model), np.asarray(Image.open(source)))
    np.testing.assert_array_equal(result.pixels, expected)
    assert result.dpi == pytest.approx((288, 288), abs=0.1)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--tile-size", "abc", "expected a whole number of at least 1, got abc"),
        ("--width", "1.5", "expected a whole number of at least 1, got 1.5"),
        ("--consistency", "-1", "expected a whole number of at least 0, got -1"),
        ("--scale", "x", "expected a number above 0, got x"),
        ("--scale", "nan", "expected a number above 0, got nan"),
        ("--fidelity", "2", "expected a number from 0 to 1, got 2"),
        ("--max-memory", "foo", "expected an amount of memory such as 1500M or 2G, got 'foo'"),
    ],
)
def test_wrong_values_name_what_was_expected(
    tmp_path: Path, run: Run, option: str, value: str, expected: str
) -> None:
    code, _, err = run(tmp_path / "a.png", tmp_path / "b.png", f"{option}={value}")
    assert code == 2 and expected in err


def test_sixteen_bits_survive(tmp_path: Path, run: Run) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 6, 4), dtype=np.uint16)
    write_picture(Picture(pixels), tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path / "b.tif")[0] == 0
    result = read_picture(tmp_path / "b.tif").pixels
    assert (result.dtype, result.shape) == (np.uint16, (20, 24, 4))


def test_options_reach_the_network(tmp_path: Path, run: Run) -> None:
    source = picture(tmp_path / "a.png", 60, 60)
    code, out, _ = run(
        source, tmp_path / "b.png", "--precision", "fp32", "--tile-size", 16, "--device", "cpu"
    )
    assert code == 0 and "float32" in out
    assert run(source, tmp_path / "c.png", "--precision", "fp32", "--tile-size", 500)[0] == 0
    tiled, whole = (read_picture(tmp_path / name).pixels.astype(int) for name in ("b.png", "c.png"))
    assert np.abs(tiled - whole).max() <= 1


@pytest.mark.parametrize(
    ("name", "target", "expected"),
    [
        ("a.webp", "folder", "folder/a.webp"),
        ("a.ico", "folder", "folder/a.ico.png"),
        ("a.jpg", "new", "new/a.jpg"),
    ],
)
def test_a_folder_as_target_keeps_name_and_format(
    tmp_path: Path, run: Run, name: str, target: str, expected: str
) -> None:
    (tmp_path / "folder").mkdir()
    source = picture(tmp_path / name, 16, 16)
    assert run(source, tmp_path / target)[0] == 0
    assert tree(tmp_path) == sorted([name, expected])
    assert read_picture(tmp_path / expected).pixels.shape[:2] == (64, 64)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path, run: Run) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    code, _, err = run(tmp_path / "pipe.png", tmp_path / "b.png")
    assert code == 2 and "pipe.png: expected an image file, got a pipe or device" in err


def test_a_model_of_any_name_is_told_on_a_terminal_of_few_letters(tmp_path: Path, model: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "mod\u00e8le")
    words = ["upscale", picture(tmp_path / "a.png"), tmp_path / "b.png", "--model", folder]
    done = subprocess.run(
        [sys.executable, "-m", "sr_hub", *map(str, words)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "mod\\xe8le" in done.stdout and (tmp_path / "b.png").exists()


def test_what_is_lost_is_said(tmp_path: Path, run: Run) -> None:
    Image.new("RGBA", (4, 4)).save(tmp_path / "a.png")
    code, out, _ = run(tmp_path / "a.png", tmp_path / "b.jpg")
    assert code == 0 and "JPEG holds no alpha" in out


BROKEN = {"empty.png": b"", "text.jpg": b"no picture", "half.png": None}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gives_one_sentence_and_no_output(tmp_path: Path, run: Run, name: str) -> None:
    content = BROKEN[name]
    path = picture(tmp_path / "whole.png", 50, 50)
    (tmp_path / name).write_bytes(path.read_bytes()[:2000] if content is None else content)
    before = tree(tmp_path)
    code, _, err = run(tmp_path / name, tmp_path / "out.png")
    assert code == 2
    assert err.count("\n") == 1 and err.startswith("sr-hub: ") and name in err
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 20000)])
def test_extreme_shapes_give_a_result(tmp_path: Path, run: Run, height: int, width: int) -> None:
    assert run(picture(tmp_path / "a.png", height, width), tmp_path / "b.png")[0] == 0
    assert read_picture(tmp_path / "b.png").pixels.shape == (4 * height, 4 * width, 3)


def test_a_result_too_wide_for_its_format_is_refused(tmp_path: Path, run: Run) -> None:
    code, _, err = run(picture(tmp_path / "a.png", 1, 20000), tmp_path / "b.jpg")
    assert code == 2 and "JPEG holds at most 65500 pixels a side, got 80000x4" in err
    assert tree(tmp_path) == ["a.png"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("b.xyz", "b.xyz: expected a suffix of"),
        ("a.png", "a.png: expected another file than the input"),
        ("none/b.png", "expected an existing folder"),
    ],
)
def test_a_wrong_target_is_refused_before_any_work(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    source = picture(tmp_path / "a.png")
    before = source.read_bytes()
    monkeypatch.setattr(cli_upscale, "_load", lambda arguments: pytest.fail("the model was loaded"))
    code, _, err = run(source, tmp_path / target)
    assert code == 2 and message in err and err.count("\n") == 1
    assert tree(tmp_path) == ["a.png"] and source.read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        ("--fidelity", "1.5"),
        ("--fidelity", "x"),
        ("--tile-size", "0"),
        ("--precision", "int8"),
        ("--colour", "no"),
    ],
)
def test_wrong_options_are_wrong_use(tmp_path: Path, run: Run, options: tuple[str, str]) -> None:
    code, _, err = run(picture(tmp_path / "a.png"), tmp_path / "b.png", *options)
    assert code == 2 and options[0] in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--precision", "fp16"), "fp16 needs a GPU"),
        (("--fidelity", "0.5"), "has one end only"),
        (("--device", "nowhere"), "nowhere"),
    ],
)
def test_options_that_do_not_fit_give_one_sentence(
    tmp_path: Path, run: Run, options: tuple[str, str], message: str
) -> None:
    code, _, err = run(picture(tmp_path / "a.png"), tmp_path / "b.png", *options)
    assert code == 2 and message in err and err.count("\n") == 1
    assert tree(tmp_path) == ["a.png"]


def test_a_missing_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = picture(tmp_path / "a.png")
    code = cli.main(
        ["upscale", str(source), str(tmp_path / "b.png"), "--model", str(tmp_path / "no" / "model")]
    )
    err = capsys.readouterr().err
    assert code == 2 and "model" in err and err.count("\n") == 1


def test_a_missing_input_is_named(tmp_path: Path, run: Run) -> None:
    code, _, err = run(tmp_path / "none.png", tmp_path / "b.png")
    assert code == 2 and "none.png: expected a picture or folder, got no such file" in err


# Folders


def test_a_folder_is_mirrored_and_one_bad_file_stops_nothing(tmp_path: Path, run: Run) -> None:
    photos = tmp_path / "photos"
    picture(photos / "a.jpg")
    picture(photos / "deep" / "er" / "b.png")
    picture(photos / "icon.ico", 16, 16)
    picture(photos / "plain.png").rename(photos / "plain")
    (photos / "bad.png").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("hello")
    (photos / "README").write_text("hello")
    (photos / ".hidden.png").write_bytes(b"")
    code, out, err = run(photos, tmp_path / "out")
    assert code == 1
    assert tree(tmp_path / "out") == ["a.jpg", "deep/er/b.png", "errors.jsonl", "icon.ico.png", "plain.png"]
    assert err.count("\n") == 1 and "bad.png: expected an image file" in err
    for name, why in (("notes.txt", "not a picture"), ("README", "not a picture"), (".hidden.png", "hidden")):
        assert f"{name}: skipped, {why}" in out
    assert "4 enlarged, 0 done before, 1 failed, 3 skipped" in out


def test_a_good_folder_exits_with_0_and_can_be_run_again(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in" / "a.png")
    for _ in range(2):
        assert run(tmp_path / "in", tmp_path / "in" / "out")[0] == 0
    assert tree(tmp_path / "in") == ["a.png", "out/a.png"]  # results are not enlarged again


def test_two_inputs_never_share_an_output(tmp_path: Path, run: Run) -> None:
    picture(tmp_path / "in" / "a.ico", 16, 16)
    picture(tmp_path / "in" / "a.ico.png")
    code, _, err = run(tmp_path / "in", tmp_path / "out")
    assert code == 1 and "a.ico.png: would be written to" in err
    assert read_picture(tmp_path / "out" / "a.ico.png").pixels.shape[:2] == (64, 64)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("in", "another folder than the input"),
        ("file", "expected a folder for the pictures"),
    ],
)
def test_wrong_folder_targets_are_refused(tmp_path: Path, run: Run, target: str, message: str) -> None:
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "file").write_text("")
    code, _, err = run(tmp_path / "in", tmp_path / target)
    assert code == 2 and message in err
    assert tree(tmp_path) == ["file", "in/a.png"]


def test_a_folder_without_pictures_is_wrong_use(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    code, _, err = run(tmp_path / "in", tmp_path / "out")
    assert code == 2 and "expected pictures, got none" in err


def test_a_full_memory_fails_one_picture(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes\nmore")

    picture(tmp_path / "in" / "a.png")
    monkeypatch.setattr(enlarging, "upscale_strips", full)
    code, out, err = run(tmp_path / "in", tmp_path / "out")
    assert code == 1 and "a.png: not enough memory" in err and "0 enlarged, 0 done before, 1 failed" in out
    assert tree(tmp_path / "out") == ["errors.jsonl"]


# The frame


def test_an_interrupt_is_said(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(enlarging, "upscale_strips", interrupt)
    code, _, err = run(picture(tmp_path / "a.png"), tmp_path / "b.png")
    assert code == 130 and "every file written is whole" in err
    assert tree(tmp_path) == ["a.png"]


def test_every_command_module_is_listed() -> None:
    modules = {path.stem.removeprefix("cli_") for path in Path(cli.__file__).parent.glob("cli_*.py")}
    assert modules == set(cli.COMMANDS)


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from sr_hub.cli import main; main(['--help']); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(command in run.stdout for command in cli.COMMANDS)
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("arguments", [["inspect", "clean"], ["enlarge"]])
def test_garbage_is_collected_again_after_the_imports(arguments: list[str]) -> None:
    assert gc.isenabled()
    cli.main(arguments)
    assert gc.isenabled()
    gc.disable()
    try:
        cli.main(arguments)
        assert not gc.isenabled()  # as the caller had it
    finally:
        gc.enable()


@pytest.mark.parametrize("arguments", [[], ["enlarge"], ["--what"]])
def test_wrong_use_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "usage: sr-hub" in capsys.readouterr().err
