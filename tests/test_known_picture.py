"""The test on a known picture scores as the evaluation does."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sr_hub import known_picture
from sr_hub.images import ImageError, Picture
from sr_hub.known_picture import score, shrink
from sr_hub.metrics import psnr_y, ssim_y
from sr_hub.resample import downscale_bicubic, upscale_bicubic


def picture(height: int = 83, width: int = 101, channels: int = 3, dtype: type = np.uint8) -> Picture:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, channels))
    pixels = coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(dtype)
    return Picture(pixels * (257 if dtype is np.uint16 else 1))


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255


def test_lr_is_the_picture_shrunk_as_test_sets_are() -> None:
    known = shrink(picture(), 4)
    assert known.hr.pixels.shape == (80, 100, 3) and known.lr.pixels.shape == (20, 25, 3)
    assert np.array_equal(known.hr.pixels, picture().pixels[1:81, :100])
    expected = downscale_bicubic(tensor(known.hr.pixels), 4, round_to_8_bits=True)
    assert torch.equal(tensor(known.lr.pixels), expected)
    assert known.size == (101, 83)
    assert known.notices == ("the middle 100×80 pixels take part",)
    whole = shrink(replace(picture(80, 100), notices=("a notice",)), 4)
    assert whole.size == (100, 80) and whole.notices == ("a notice",)


def test_scores_are_those_of_the_metrics() -> None:
    known = shrink(picture(), 4)
    hr, lr = tensor(known.hr.pixels), tensor(known.lr.pixels)
    perfect = score(known, known.hr)
    assert perfect.psnr_y == float("inf") and perfect.ssim_y == pytest.approx(1)
    noisy = Picture(np.clip(known.hr.pixels.astype(int) + 3, 0, 255).astype(np.uint8))
    scores = score(known, noisy)
    assert scores.psnr_y == psnr_y(tensor(noisy.pixels), hr, 4).item()
    assert scores.ssim_y == ssim_y(tensor(noisy.pixels), hr, 4).item()
    bicubic = upscale_bicubic(lr, 4)
    assert scores.bicubic_psnr_y == perfect.bicubic_psnr_y == psnr_y(bicubic, hr, 4).item()
    assert scores.bicubic_ssim_y == ssim_y(bicubic, hr, 4).item()


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (4, np.uint8), (3, np.uint16)])
def test_pictures_of_every_kind_become_8_bit_colour(channels: int, dtype: type) -> None:
    known = shrink(picture(channels=channels, dtype=dtype), 4)
    assert known.hr.pixels.dtype == known.lr.pixels.dtype == np.uint8
    assert known.hr.pixels.shape[2] == known.lr.pixels.shape[2] == 3
    if channels == 1:
        assert np.array_equal(known.hr.pixels[..., 0], picture(channels=1).pixels[1:81, :100, 0])


def test_large_pictures_take_part_by_their_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_picture, "LARGEST_SIDE", 66)
    known = shrink(picture(), 4)
    assert np.array_equal(known.hr.pixels, picture().pixels[9:73, 18:82])
    assert known.notices == ("the middle 64×64 pixels take part",)


def test_pictures_that_are_too_small_are_told() -> None:
    with pytest.raises(ImageError, match="at least 64x64 pixels, got 101x63"):
        shrink(picture(63), 4)
