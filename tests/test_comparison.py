"""Previews show the same place of both results, pixel for pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_hub import comparison
from sr_hub.comparison import compare, load_generator
from sr_hub.encoding import write_picture
from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError
from sr_hub.inference import upscale


@pytest.fixture(scope="module")
def generator() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(features=8, blocks=2).eval()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png", icc_profile=b"profile")
    return tmp_path / "photo.png"


def test_previews_are_bicubic_and_the_result(generator: SRGenerator, photo: Path) -> None:
    result = compare(generator, photo)
    with Image.open(photo) as image:
        bicubic = np.asarray(image.resize((120, 80), Image.Resampling.BICUBIC))
    assert np.array_equal(np.asarray(result.bicubic), bicubic)
    assert np.array_equal(np.asarray(result.sr), np.asarray(upscale(generator, photo)))
    assert np.array_equal(np.asarray(result.sr), result.picture.pixels)
    assert result.bicubic.info == result.sr.info == {"icc_profile": b"profile"}
    assert result.notices == ()


def test_facts_name_sizes_time_device_and_precision(generator: SRGenerator, photo: Path) -> None:
    facts = compare(generator, photo).facts
    assert facts.startswith("30×20 → 120×80 pixels · ")
    assert facts.endswith((" s · CPU, bf16", " s · CPU, fp32"))
    assert float(facts.split(" · ")[1].removesuffix(" s")) < 60


def test_large_results_show_their_middle(
    generator: SRGenerator, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(generator, photo)
    monkeypatch.setattr(comparison, "LARGEST_SHOWN", 40)
    cut = compare(generator, photo)
    assert cut.picture.pixels.shape == (80, 120, 3)
    # 10 LR pixels a side are shown, from row 5 and column 10.
    box = (40, 20, 80, 60)
    assert np.array_equal(np.asarray(cut.sr), np.asarray(whole.sr.crop(box)))
    difference = np.asarray(cut.bicubic).astype(int) - np.asarray(whole.bicubic.crop(box))
    assert np.abs(difference).max() <= 1
    assert cut.notices == ("only the middle 40×40 pixels are shown",)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_deep_and_transparent_pictures_have_8_bit_previews(
    generator: SRGenerator, tmp_path: Path, suffix: str
) -> None:
    levels = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / f"grey.{suffix}")
    result = compare(generator, tmp_path / f"grey.{suffix}")
    assert result.picture.pixels.dtype == np.uint16
    assert (result.sr.mode, result.bicubic.mode) == ("L", "L")
    # Half grey in 16 bits is half grey in 8, not white.
    assert abs(float(np.asarray(result.bicubic).mean()) - 127.5) < 2
    assert abs(float(np.asarray(result.sr).mean()) - result.picture.pixels.mean() / 257) < 1
    Image.fromarray(np.full((8, 8, 4), 128, np.uint8)).save(tmp_path / f"clear.{suffix}")
    result = compare(generator, tmp_path / f"clear.{suffix}")
    assert (result.sr.mode, result.bicubic.mode) == ("RGBA", "RGBA")
    write_picture(result.picture, tmp_path / "out.png")


def test_progress_reaches_the_end(generator: SRGenerator, photo: Path) -> None:
    steps: list[tuple[int, int]] = []
    compare(generator, photo, lambda done, total: steps.append((done, total)))
    assert steps and steps[-1][0] == steps[-1][1]


def test_bad_files_are_told(generator: SRGenerator, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match="bad.png: expected an image file"):
        compare(generator, tmp_path / "bad.png")


def test_load_generator_is_from_pretrained(generator: SRGenerator, tmp_path: Path) -> None:
    generator.save_pretrained(tmp_path)
    loaded = load_generator(str(tmp_path))
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name].cpu(), value) for name, value in generator.state_dict().items())
    with pytest.raises(ValueError, match="one end only"):
        load_generator(str(tmp_path), 0.5)
