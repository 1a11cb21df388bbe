"""The examples that draw pictures to be learnt: the same for the same seed, of any photos, sharp."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont

from sr_hub.data import list_images

PROGRAMS = Path(__file__).parent.parent / "examples" / "drawn"
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 30">{}</svg>'


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.full((40, 60, 3), (200, 60, 20), np.uint8)
    pixels[:, 30:] = (20, 90, 200)
    Image.fromarray(pixels).save(folder / "two.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    return folder


@pytest.fixture
def fonts(tmp_path: Path) -> list[object]:
    """The font that Pillow brings, as a file."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    font = ImageFont.load_default(20)
    assert isinstance(font, ImageFont.FreeTypeFont)
    (folder / "pillow.ttf").write_bytes(font.font_bytes)
    return ["--fonts", folder]


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", ["shapes", "writing"])
def test_a_seed_is_a_picture(name: str, photos: Path, fonts: list[object]) -> None:
    out, more = photos / "drawn", fonts if name == "writing" else []
    assert run(name, photos, out, "--count", 3, "--seed", 5, *more).returncode == 0
    names = [path.name for path in list_images(out)]
    assert names == [f"{name}-0000{seed}.png" for seed in (5, 6, 7)]
    first, second, third = (np.asarray(Image.open(out / name)) for name in names)
    assert first.shape == (480, 480, 3)
    assert not np.array_equal(first, second) and not np.array_equal(second, third)
    # Again, now that they lie among the photos: they are not taken for photos.
    assert run(name, photos, out, "--count", 1, "--seed", 6, *more).returncode == 0
    assert np.array_equal(np.asarray(Image.open(out / names[1])), second)


def test_edges_are_sharp_and_colours_those_of_the_photos(photos: Path, tmp_path: Path) -> None:
    assert run("shapes", photos, tmp_path / "out", "--count", 6).returncode == 0
    pictures = [np.asarray(Image.open(path)).astype(float) for path in list_images(tmp_path / "out")]
    steps = [np.abs(np.diff(picture, axis=1)).max() for picture in pictures]
    assert np.median(steps) > 60  # from one pixel to the next
    greens = np.concatenate([picture[..., 1].ravel() for picture in pictures])
    assert greens.std() > 5


def test_pages_have_ink_on_flat_paper(photos: Path, fonts: list[object], tmp_path: Path) -> None:
    assert run("writing", photos, tmp_path / "out", "--count", 12, *fonts).returncode == 0
    pages = [
        np.asarray(Image.open(path).convert("L")).astype(float) for path in list_images(tmp_path / "out")
    ]
    steps = [np.abs(np.diff(page, axis=1)) for page in pages]
    assert np.median([step.max() for step in steps]) > 100
    assert np.median([(step < 1).mean() for step in steps]) > 0.5


@pytest.mark.parametrize("name", ["shapes", "writing"])
def test_a_folder_without_photos_is_refused(name: str, tmp_path: Path) -> None:
    result = run(name, tmp_path, tmp_path / "out", *(["--fonts", tmp_path] if name == "writing" else []))
    assert result.returncode == 2
    assert f"expected pictures in {tmp_path}, found none" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_fonts_is_refused(photos: Path, tmp_path: Path) -> None:
    result = run("writing", photos, tmp_path / "out", "--fonts", photos)
    assert result.returncode == 2
    assert f"expected .ttf or .otf files in {photos}, found none" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(shutil.which("rsvg-convert") is None, reason="needs rsvg-convert (Debian: librsvg2-bin)")
def test_drawings_become_pictures_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "svg"
    folder.mkdir()
    stripes = "".join(f'<path d="M{x} 0v30h1v-30z"/>' for x in range(0, 40, 2))
    (folder / "stripes.svg").write_text(DRAWING.format(stripes))
    (folder / "empty.svg").write_text(DRAWING.format(""))
    (folder / "broken.svg").write_text("<svg")
    assert run("clipart", folder, tmp_path / "out").returncode == 0
    (picture,) = list_images(tmp_path / "out")
    assert picture.name == "drawing-00000.png"
    assert min(Image.open(picture).size) >= 300


def test_a_folder_without_drawings_is_refused(tmp_path: Path) -> None:
    result = run("clipart", tmp_path, tmp_path / "out")
    assert result.returncode == 2
    assert f"expected .svg files in {tmp_path}, found none" in result.stderr
