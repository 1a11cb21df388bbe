"""What is shown of a result is the same place of both sides, pixel for pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from sr_hub import comparison
from sr_hub.comparison import compare, preview
from sr_hub.generator import SRGenerator
from sr_hub.images import Picture
from sr_hub.inference import upscale_picture


@pytest.fixture(scope="module")
def generator() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(features=8, blocks=2).eval()


def picture(height: int = 20, width: int = 30) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Picture(pixels, icc_profile=b"profile", xmp=b"<x/>")


def test_sides_are_bicubic_and_the_result(generator: SRGenerator) -> None:
    lr = picture()
    sr = upscale_picture(generator, lr)
    shown = compare(lr, sr)
    bicubic = np.asarray(Image.fromarray(lr.pixels).resize((120, 80), Image.Resampling.BICUBIC))
    assert np.array_equal(np.asarray(shown.bicubic), bicubic)
    assert np.array_equal(np.asarray(shown.sr), sr.pixels)
    assert shown.bicubic.info == shown.sr.info == {"icc_profile": b"profile"}
    assert shown.full_size == (120, 80) and shown.notice is None


def test_results_of_any_size_have_both_sides_of_it() -> None:
    lr, sr = picture(), Picture(np.zeros((37, 55, 3), np.uint8))
    shown = compare(lr, sr)
    assert shown.bicubic.size == shown.sr.size == shown.full_size == (55, 37)


def test_large_results_are_shown_shrunk_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "LARGEST_SHOWN", 60)
    lr = Picture(np.full((20, 30, 3), 90, np.uint8))
    shown = compare(lr, Picture(np.full((80, 120, 3), 200, np.uint8)))
    assert shown.bicubic.size == shown.sr.size == (60, 40)
    assert (np.asarray(shown.bicubic) == 90).all() and (np.asarray(shown.sr) == 200).all()
    assert shown.full_size == (120, 80)
    assert shown.notice == "shown at 50%; loupe and download have every pixel"


def test_preview_is_the_middle_of_the_result(generator: SRGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preview(generator, picture()) is None
    monkeypatch.setattr(comparison, "PREVIEWED_PIXELS", 500)
    monkeypatch.setattr(comparison, "PREVIEW_SIDE", 10)
    lr = picture(20, 31)
    shown = preview(generator, lr)
    assert shown is not None
    middle = Picture(np.ascontiguousarray(lr.pixels[5:15, 10:20]))
    assert np.array_equal(np.asarray(shown.sr), upscale_picture(generator, middle).pixels)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_have_8_bit_sides(generator: SRGenerator, dtype: type) -> None:
    levels = np.linspace(0, 1, 256).reshape(16, 16, 1)
    lr = Picture((levels * 65535).astype(dtype) if dtype is np.uint16 else levels.astype(dtype))
    shown = compare(lr, upscale_picture(generator, lr))
    assert (shown.sr.mode, shown.bicubic.mode) == ("L", "L")
    # Half grey in 16 bits is half grey in 8, not white.
    assert abs(float(np.asarray(shown.bicubic).mean()) - 127.5) < 2


def test_transparent_pictures_stay_transparent(generator: SRGenerator) -> None:
    lr = Picture(np.full((8, 8, 4), 128, np.uint8))
    shown = compare(lr, upscale_picture(generator, lr))
    assert (shown.sr.mode, shown.bicubic.mode) == ("RGBA", "RGBA")
