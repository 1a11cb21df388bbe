import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_hub.degradations import DEGRADATIONS, bicubic, blur, jpeg, photo, rough
from sr_hub.resample import downscale_bicubic


def picture(count: int = 3, side: int = 64) -> Tensor:
    """Smooth shapes with edges, so that JPEG and blur have something to change."""
    y, x = torch.meshgrid(torch.linspace(0, 6, side), torch.linspace(0, 9, side), indexing="ij")
    image = torch.stack([x.sin() * y.cos(), (x * y).sin(), ((x - y) > 1).float()]) * 0.4 + 0.5
    return torch.stack([image.roll(7 * i, 2) for i in range(count)])


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_is_what_libjpeg_gives(quality: int) -> None:
    image = picture(1, 75)[..., :70]  # sides that are no multiples of 16
    array = image[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    expected = np.asarray(Image.open(buffer)).astype(float)
    result = jpeg(image, torch.tensor([float(quality)]))[0].permute(1, 2, 0).mul(255).numpy()
    damage = np.abs(expected - array).mean()
    # libjpeg works in integers: a few values fall on the other side of a rounding.
    assert np.abs(result - expected).mean() < 0.25 * damage + 0.35


def test_bicubic_is_imresize_on_8_bits() -> None:
    hr = picture()
    lr = bicubic(hr, 4, generators(0, 1, 2))
    assert torch.equal(lr, downscale_bicubic(hr, 4, round_to_8_bits=True))


def test_blur_is_a_convolution_with_a_turned_gaussian() -> None:
    hr = torch.rand(2, 3, 21, 34, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = torch.tensor([[0.9, 0.1, 0.25], [0.5, 0.5, 0.0]], dtype=torch.float64)
    result = blur(hr, draws, widest=torch.tensor([2.4, 4.0], dtype=torch.float64))
    padded = torch.nn.functional.pad(hr, (7,) * 4, mode="replicate")
    y, x = torch.meshgrid(*[torch.arange(-7.0, 8.0, dtype=torch.float64)] * 2, indexing="ij")
    for image, (a, b, turn), most, blurred in zip(padded, draws.tolist(), (2.3, 3.9), result, strict=True):
        long, short, angle = 0.1 + most * a, 0.1 + most * b, math.pi * turn
        u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        kernel = torch.exp(-(u**2) / (2 * long**2) - v**2 / (2 * short**2))
        expected = torch.nn.functional.conv2d(image[:, None], (kernel / kernel.sum())[None, None])[:, 0]
        torch.testing.assert_close(blurred, expected, rtol=0, atol=1e-12)


def test_photo_depends_on_each_images_generator_only() -> None:
    hr = picture()
    together = photo(hr, 4, generators(5, 6, 7))
    apart = torch.cat([photo(hr[i : i + 1], 4, generators(5 + i)) for i in range(3)])
    assert torch.equal(together, apart)
    assert not torch.equal(together, photo(hr, 4, generators(8, 9, 10)))


@pytest.mark.parametrize("name", ["bicubic", "photo", "rough"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_results_are_8_bit_values_of_the_right_size(name: str, scale: int) -> None:
    hr = picture(2, 24 * scale)
    lr = DEGRADATIONS[name](hr, scale, generators(1, 2))
    assert lr.shape == (2, 3, 24, 24)
    assert lr.min() >= 0
    assert lr.max() <= 1
    assert torch.allclose(lr * 255, (lr * 255).round(), atol=1e-4)


def test_photo_varies_from_clean_to_damaged() -> None:
    hr = picture(1).mean(1, keepdim=True).expand(60, 3, -1, -1)  # grey: 4:2:0 alone would drown the rest
    clean = downscale_bicubic(hr[:1], 4)
    errors = (photo(hr, 4, generators(*range(60))) - clean).square().mean((1, 2, 3)).sqrt()
    assert errors.min() < 0.003  # the share that stays bicubic: 8-bit rounding only
    assert 0.01 < errors.median() < 0.08
    assert errors.max() < 0.25


def test_photo_keeps_the_mean_colour() -> None:
    hr = picture(1).expand(60, -1, -1, -1)
    lr = photo(hr, 4, generators(*range(60)))
    assert torch.allclose(lr.mean((0, 2, 3)), hr.mean((0, 2, 3)), atol=0.01)


def test_rough_is_photo_but_for_a_third_which_is_worse() -> None:
    hr = picture(1).expand(300, -1, -1, -1)
    clean, seeds = downscale_bicubic(hr[:1], 4), range(300)
    mild, worse = photo(hr, 4, generators(*seeds)), rough(hr, 4, generators(*seeds))
    changed = (mild != worse).flatten(1).any(1)
    assert 0.2 < changed.float().mean() < 0.3  # a third, less the fifth of it that is bicubic
    before, after = ((lr[changed] - clean).square().mean((1, 2, 3)) for lr in (mild, worse))
    assert (after > before).float().mean() > 0.85


def test_photo_needs_one_generator_per_image() -> None:
    with pytest.raises(ValueError, match="one generator per image, got 2 for 3"):
        photo(picture(), 4, generators(1, 2))
