"""The example that draws shapes to be learnt: the same for the same seed, of any photos, sharp."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_hub.data import list_images

PROGRAM = Path(__file__).parent.parent / "examples" / "shapes.py"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.full((40, 60, 3), (200, 60, 20), np.uint8)
    pixels[:, 30:] = (20, 90, 200)
    Image.fromarray(pixels).save(folder / "two.png")
    Image.fromarray(pixels[..., 0]).save(folder / "grey.png")
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_seed_is_a_picture(photos: Path) -> None:
    out = photos / "shapes"
    assert run(photos, out, "--count", 3, "--seed", 5).returncode == 0
    names = [path.name for path in list_images(out)]
    assert names == ["shapes-00005.png", "shapes-00006.png", "shapes-00007.png"]
    first, second, third = (np.asarray(Image.open(out / name)) for name in names)
    assert first.shape == (480, 480, 3)
    assert not np.array_equal(first, second) and not np.array_equal(second, third)
    # Again, now that they lie among the photos: they are not taken for photos.
    assert run(photos, out, "--count", 1, "--seed", 6).returncode == 0
    assert np.array_equal(np.asarray(Image.open(out / names[1])), second)


def test_edges_are_sharp_and_colours_those_of_the_photos(photos: Path, tmp_path: Path) -> None:
    assert run(photos, tmp_path / "out", "--count", 6).returncode == 0
    pictures = [np.asarray(Image.open(path)).astype(float) for path in list_images(tmp_path / "out")]
    steps = [np.abs(np.diff(picture, axis=1)).max() for picture in pictures]
    assert np.median(steps) > 60  # from one pixel to the next
    greens = np.concatenate([picture[..., 1].ravel() for picture in pictures])
    assert greens.std() > 5


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    result = run(tmp_path, tmp_path / "out")
    assert result.returncode == 2
    assert f"expected pictures in {tmp_path}, found none" in result.stderr
    assert not (tmp_path / "out").exists()
