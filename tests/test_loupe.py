"""The loupe shows what the whole result shows, and opens where the ends differ."""

import numpy as np
import pytest
import torch

from sr_hub import inference, loupe
from sr_hub.comparison import compare
from sr_hub.consistency import Consistent
from sr_hub.generator import SRGenerator
from sr_hub.images import Picture
from sr_hub.inference import upscale_picture
from sr_hub.loupe import difference_from_bicubic, difference_map, look, overlay, place_of_largest
from sr_hub.precision import has_fast_bf16


def generator(seed: int) -> SRGenerator:
    torch.manual_seed(seed)
    return SRGenerator(features=8, blocks=2).eval()


def picture(height: int = 48, width: int = 64, channels: int = 3) -> Picture:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, channels))
    return Picture(coarse.repeat(4, 0).repeat(4, 1).astype(np.uint8))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loupe, "LOUPE_SIDE", 64)  # 16 LR pixels at 4:1


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16, on CPUs with AMX, a sum and so its last bit depend on the size of what is read."""
    monkeypatch.setattr(inference, "has_fast_bf16", lambda device: False)


@pytest.mark.parametrize("point", [(0.5, 0.5), (0.0, 1.0), (0.97, 0.1)])
@pytest.mark.parametrize("channels", [3, 4, 1])
@pytest.mark.usefixtures("small", "in_fp32")
def test_images_are_parts_of_the_whole_results(point: tuple[float, float], channels: int) -> None:
    lr, ends = picture(channels=channels), [generator(0), Consistent(generator(1), 2)]
    seen = look(lr, ends, point, 4)
    left, top, right, bottom = (
        round(share * side) for share, side in zip(seen.box, (256, 192) * 2, strict=True)
    )
    assert (right - left, bottom - top) == (64, 64)
    for image, end in zip(seen.images[1:], ends, strict=True):
        whole = np.asarray(compare(lr, upscale_picture(end, lr)).sr)
        assert np.array_equal(np.asarray(image), whole[top:bottom, left:right])
    bicubic = np.asarray(compare(lr, upscale_picture(ends[0], lr)).bicubic)[top:bottom, left:right]
    assert np.abs(np.asarray(seen.images[0]).astype(int) - bicubic).max() <= 1
    assert seen.focus == pytest.approx((point[0] * 256 - left, point[1] * 192 - top))
    assert 0 <= seen.focus[0] <= 64 and 0 <= seen.focus[1] <= 64


@pytest.mark.parametrize("point", [(0.5, 0.5), (0.0, 1.0), (0.97, 0.1)])
@pytest.mark.usefixtures("small")
def test_images_of_the_bundled_model_are_parts_of_the_whole_results(point: tuple[float, float]) -> None:
    """In whatever precision this machine takes: in bf16 within a grey level."""
    lr, end = picture(), SRGenerator.from_pretrained("photo", fidelity=0)
    seen = look(lr, [end], point, 4)
    left, top = (round(share * side) for share, side in zip(seen.box[:2], (256, 192), strict=True))
    whole = np.asarray(compare(lr, upscale_picture(end, lr)).sr)[top : top + 64, left : left + 64]
    difference = np.abs(np.asarray(seen.images[1]).astype(int) - whole)
    assert difference.max() <= (1 if has_fast_bf16(torch.device("cpu")) else 0)


@pytest.mark.usefixtures("small")
def test_a_grey_part_of_a_colour_picture_is_what_the_whole_has_there() -> None:
    lr = picture()
    lr.pixels[:, :40] = lr.pixels[:, :40, :1]
    seen = look(lr, [generator(0)], (0.1, 0.5), 4)
    top = round(seen.box[1] * 192)
    whole = upscale_picture(generator(0), lr).pixels[top : top + 64, :64]
    assert np.array_equal(np.asarray(seen.images[1]), whole)


@pytest.mark.usefixtures("small")
def test_other_sizes_and_the_original() -> None:
    lr = picture()
    original = Picture(lr.pixels.repeat(4, 0).repeat(4, 1))
    seen = look(lr, [generator(0)], (0.5, 0.5), 2, original)
    assert {image.size for image in seen.images} == {(64, 64)}  # 32 LR pixels at 2:1
    assert len(seen.images) == 3
    full = look(lr, [generator(0)], (0.5, 0.5), 4, original)
    left, top = round(full.box[0] * 256), round(full.box[1] * 192)
    assert np.array_equal(np.asarray(full.images[2]), original.pixels[top : top + 64, left : left + 64])


def test_points_outside_are_moved_inside_or_refused() -> None:
    lr = picture()
    assert look(lr, [generator(0)], (7.0, -3.0), 4).focus == look(lr, [generator(0)], (1.0, 0.0), 4).focus
    for place in ((float("nan"), 0.5), (0.5, float("inf"))):
        with pytest.raises(ValueError, match="point must be two shares"):
            look(lr, [generator(0)], place, 4)


def test_pictures_smaller_than_the_loupe_are_shown_whole() -> None:
    seen = look(picture(8, 12), [generator(0)], (0.2, 0.9), 4)
    assert seen.images[1].size == (48, 32) and seen.box == (0, 0, 1, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_map_is_the_mean_difference_of_each_input_pixel(channels: int) -> None:
    lr = picture(channels=channels)
    if channels == 4:
        lr.pixels[..., 3] = 255
    steps: list[tuple[int, int]] = []
    differences = difference_map(lr, generator(0), generator(1), lambda *step: steps.append(step))
    rgb = Picture(lr.pixels[..., :3])
    ends = [upscale_picture(generator(seed), rgb).pixels.astype(float) for seed in (0, 1)]
    expected = np.abs(ends[0] - ends[1]).reshape(48, 4, 64, 4, -1).mean(axis=(1, 3, 4))
    assert differences.shape == (48, 64)
    np.testing.assert_allclose(differences, expected, atol=1e-3)
    assert steps[-1][0] == steps[-1][1] and [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_map_of_equal_ends_is_nothing() -> None:
    differences = difference_map(picture(), generator(0), generator(0))
    assert not differences.any()
    assert not np.asarray(overlay(differences))[..., 3].any()


def test_difference_from_bicubic_is_where_it_is() -> None:
    lr = picture()
    sr = Picture(np.asarray(compare(lr, Picture(lr.pixels.repeat(4, 0).repeat(4, 1))).bicubic).copy())
    assert not difference_from_bicubic(compare(lr, sr), lr).any()
    sr.pixels[40:44, 80:84] = 255 - sr.pixels[40:44, 80:84]
    assert np.argwhere(difference_from_bicubic(compare(lr, sr), lr) > 0).tolist() == [[10, 20]]


def test_place_is_the_middle_of_the_largest_part() -> None:
    differences = np.zeros((100, 200), np.float32)
    differences[3, 3] = 50  # one loud pixel is less than a part
    differences[60:84, 120:144] = 2
    assert place_of_largest(differences) == (132 / 200, 72 / 100)
    assert place_of_largest(np.ones((5, 7))) == (0.5, 0.5)


def test_overlay_covers_more_where_more_is_invented() -> None:
    colors = np.asarray(overlay(np.array([[0, 4, 16, 200]], np.float32)))[0]
    opacity = colors[:, 3].astype(int)
    assert opacity[0] == 0 and list(opacity) == sorted(opacity) and opacity[1] > 40 and opacity[3] == 235
