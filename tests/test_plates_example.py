"""The example of a domain of one's own: plates are drawn as their labels say, and measured right."""

import argparse
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import matplotlib
import numpy as np
import pytest
from PIL import Image

from sr_hub.config import add_arguments, from_arguments
from sr_hub.generator import SRGenerator
from sr_hub.pretrained import DEFAULT_MODEL

FOLDER = Path(__file__).parent.parent / "examples" / "plates"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # fonts that are there wherever the tests run
FONT, OTHER_FONT = str(FONTS / "DejaVuSans-Bold.ttf"), str(FONTS / "DejaVuSerif-Bold.ttf")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The example's programs as modules."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("render", "ocr", "measure")
    modules = {name: __import__(name) for name in names}
    for name in names:
        monkeypatch.delitem(sys.modules, name)
    return modules


def run(name: str, *arguments: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    command = [sys.executable, str(FOLDER / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def render_some(out: Path, **changes: object) -> subprocess.CompletedProcess[str]:
    settings = {"count": 2, "held-out": 1, "seed": 3, "fonts": FONT, "held-out-font": OTHER_FONT} | changes
    return run(
        "render.py", "--out", out, *(x for key, value in settings.items() for x in (f"--{key}", value))
    )


@pytest.mark.parametrize("page", ["README.md", "docs/domain.md"])
def test_the_commands_of_the_pages_are_understood(page: str) -> None:
    text = (FOLDER.parent.parent / page).read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^python train.py (--data plates/train .*)$", text, re.MULTILINE)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    config = from_arguments(parser.parse_args(shlex.split(command)))
    assert config.init == DEFAULT_MODEL and config.degradation == "photo"
    assert not config.mirror, "letters are never mirrored"
    assert (config.patch_size + 8) * 4 <= 128, "crops must fit into the rendered pictures"


def test_formats_give_letters_and_digits(example: dict[str, ModuleType]) -> None:
    text = example["render"].random_text(np.random.default_rng(0), "AA-00 A")
    assert text[:2].isalpha() and text[2] == "-" and text[3:5].isdigit() and text[5] == " "
    assert not set("IOQ") & set(example["render"].LETTERS)


def test_a_plate_is_the_same_at_every_distance_and_its_text_is_none_of_those_to_avoid(
    example: dict[str, ModuleType],
) -> None:
    render = example["render"].render
    _, near = render(np.random.default_rng(5), FONT, 32)
    _, far = render(np.random.default_rng(5), FONT, 16)
    assert near.text == far.text and near.light == far.light

    def height(label: object) -> float:
        corners = np.array(label.corners)
        return float(np.linalg.norm(corners[3] - corners[0]))

    assert height(near) == pytest.approx(32, rel=0.15)  # one side of a plate seen askew is nearer
    assert height(near) == pytest.approx(2 * height(far), rel=0.02)
    _, other = render(np.random.default_rng(5), FONT, 32, avoid={near.text})
    assert other.text != near.text


def test_corners_lie_where_pillow_puts_the_text(example: dict[str, ModuleType]) -> None:
    render = example["render"]
    place = render._perspective(np.random.default_rng(1), (400, 120), 80)
    plate = Image.new("L", (400, 120))
    plate.paste(255, (296, 36, 305, 45))  # a dot around (300.5, 40.5)
    size = (render.SUPERSAMPLING * render.WIDTH, render.SUPERSAMPLING * render.HEIGHT)
    scene = np.asarray(plate.transform(size, Image.Transform.PERSPECTIVE, place, Image.Resampling.BILINEAR))
    y, x = (np.average(np.indices(scene.shape)[axis] + 0.5, weights=scene) for axis in (0, 1))
    assert render._project(place, np.array([(300.5, 40.5)]))[0] == pytest.approx((x, y), abs=0.2)


def test_render_fills_the_folders_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        done = render_some(tmp_path / name, seed=seed)
        assert done.returncode == 0, done.stderr
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert Path("train/00001.png") in files and Path("held-out/7px/plates.json") in files
    for file in files:
        a, b, c = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert a == b and a != c, file
    assert Image.open(tmp_path / "a" / "train" / "00000.png").size == (320, 128)
    again = render_some(tmp_path / "a")
    assert again.returncode == 1 and "is there already: name another --out" in again.stderr


def test_a_missing_font_is_named(tmp_path: Path) -> None:
    done = render_some(tmp_path / "a", fonts="NoSuchFont.ttf")
    assert done.returncode == 1 and done.stderr.startswith("no font NoSuchFont.ttf: install")
    assert not (tmp_path / "a").exists()


def test_what_tesseract_prints_becomes_readings(example: dict[str, ModuleType]) -> None:
    ocr = example["ocr"]
    table = (
        "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"
        "1\t1\t0\t0\t0\t0\t0\t0\t152\t64\t-1\t\n"
        "5\t1\t1\t1\t1\t1\t19\t17\t61\t30\t91.5\t(89o3\n"
        "5\t1\t1\t1\t1\t2\t85\t18\t48\t28\t60.2\tVf-Y\n"
        "1\t2\t0\t0\t0\t0\t0\t0\t100\t64\t-1\t\n"
    )
    assert ocr.parse_tsv(table, 2) == [ocr.Reading("8903VFY", 60), ocr.Reading("", 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("AB123", 1), ("AB128", 0.8), ("B123", 0.8), ("XAB123", 0.8), ("", 0), ("ZZZZZZZZZZZZ", 0)],
)
def test_character_accuracy(example: dict[str, ModuleType], text: str, expected: float) -> None:
    assert example["ocr"].character_accuracy(text, "AB123") == pytest.approx(expected)


def test_a_plate_is_cut_upright_and_dark_on_light(example: dict[str, ModuleType]) -> None:
    """A light rectangle on dark, turned by a right angle: its corners tell where its top is."""
    picture = Image.new("RGB", (100, 100), (20, 20, 20))
    picture.paste((200, 200, 200), (40, 20, 60, 40))  # one letter, near the end of the text
    corners = np.array([(60, 20), (60, 80), (40, 80), (40, 20)])  # read downwards
    text = np.asarray(example["ocr"].cut_upright(picture, corners, light=True))
    assert text.shape == (2 * 10 + 23, 2 * 10 + 63)  # text and margins of 1.6, padded by half its height
    assert text[21, 10 + 12] < 30 and text[21, 10 + 50] > 225


def test_without_tesseract_the_error_says_what_to_install(
    example: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no program tesseract: .*apt-get install tesseract-ocr"):
        example["ocr"].read([Image.new("L", (60, 30), 255)])


def test_tesseract_reads_what_render_wrote(example: dict[str, ModuleType]) -> None:
    if shutil.which("tesseract") is None:
        pytest.skip("needs tesseract: apt-get install tesseract-ocr")
    plates = [example["render"].render(np.random.default_rng(seed), FONT, 36) for seed in range(8)]
    texts = [example["ocr"].cut_upright(p, np.array(label.corners), label.light) for p, label in plates]
    right = [
        reading.text == example["ocr"].plain(label.text)
        for reading, (_, label) in zip(example["ocr"].read(texts), plates, strict=True)
    ]
    assert sum(right) >= 6


def stand_in(folder: Path, texts: list[str]) -> str:
    """A program ``tesseract`` that reads ``texts`` over and over; returns the PATH to find it by."""
    program = folder / "tesseract"
    folder.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "for page, _ in enumerate(open(sys.argv[1])):\n"
        f"    text = {texts!r}[page % {len(texts)}]\n"
        "    print(5, page + 1, 1, 1, 1, 1, 0, 0, 9, 9, 95.0, text, sep='\\t')\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_measure_scores_both_models_and_counts_what_is_invented(tmp_path: Path) -> None:
    assert render_some(tmp_path / "plates", **{"held-out": 2}).returncode == 0
    data = tmp_path / "plates" / "held-out"
    for folder in data.iterdir():
        if folder.name != "9px":
            shutil.rmtree(folder)
    labels = json.loads((data / "9px" / "plates.json").read_text())
    first = labels["000.png"]["text"]
    SRGenerator(features=8, blocks=2).save_pretrained(tmp_path / "model")
    done = run(
        "measure.py", "--data", data, "--domain", tmp_path / "model", "--general", tmp_path / "model",
        "--out", tmp_path / "out", path=stand_in(tmp_path / "bin", ["", first, first, "B0GUS", first]),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "9px.json").read_text())
    right = {column: shares["plates"] for column, shares in result["readings"].items()}
    assert right == {"LR": 0, "bicubic": 0.5, "general": 0.5, "domain": 0, "original": 0.5}
    wrong = {column: shares["confident and wrong"] for column, shares in result["readings"].items()}
    assert wrong == {"LR": 1, "bicubic": 0.5, "general": 0.5, "domain": 1, "original": 0.5}
    assert result["scores"]["general"] == result["scores"]["domain"]
    assert result["scores"]["domain"]["psnr_y"] != result["scores"]["bicubic"]["psnr_y"]
    assert [row["text"] for row in result["plates"]] == [label["text"] for label in labels.values()]
    assert "| 9px | 0 / 50 / 50 / 0 / 50 | 50 / 50 / 100 | 100 / 100 / 100 |" in done.stdout
    sheet = Image.open(tmp_path / "out" / "invented.png")
    assert sheet.size == (5 * 244, 20 + 108), "the original of the second plate is misread, too"


def test_measure_refuses_a_folder_without_plates(tmp_path: Path) -> None:
    (tmp_path / "data" / "7px").mkdir(parents=True)
    done = run("measure.py", "--data", tmp_path / "data", "--domain", "clean", "--out", tmp_path / "out")
    assert done.returncode == 1 and "--data must be the folder held-out" in done.stderr
