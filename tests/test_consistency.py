"""Back-projection: results that give back their input, in tiles as on the whole."""

import numpy as np
import pytest
import torch

from sr_hub.consistency import Consistent, share_consistent
from sr_hub.generator import SRGenerator
from sr_hub.images import Picture
from sr_hub.inference import upscale_picture
from sr_hub.resample import downscale_bicubic, upscale_bicubic
from sr_hub.streaming import upscale_strips


def network() -> SRGenerator:
    torch.manual_seed(0)
    generator = SRGenerator(features=4, blocks=1)
    with torch.no_grad():
        generator.tail.weight.mul_(5)
    return generator


def photo(side: int) -> torch.Tensor:
    """Smooth noise as an HR picture, so that there is something to lose."""
    torch.manual_seed(1)
    return upscale_bicubic(torch.rand(1, 3, side // 8, side // 8), 8).clamp(0, 1)


def test_steps_bring_the_result_to_its_input() -> None:
    lr = downscale_bicubic(photo(128), 4, round_to_8_bits=True)
    shares = []
    with torch.no_grad():
        shares.append(share_consistent(lr, network()(lr).clamp(0, 1), 4))
        shares += [share_consistent(lr, Consistent(network(), steps)(lr), 4) for steps in (1, 5)]
    assert shares[0] < 0.5 < shares[1] < shares[2] and shares[2] > 0.95


def test_the_share_is_counted_within_the_tolerance() -> None:
    sr = torch.full((1, 3, 8, 8), 0.5)  # rounds to 128 / 255
    lr = torch.tensor([128.0, 129, 130, 126]).view(1, 1, 2, 2).expand(1, 3, 2, 2) / 255
    assert share_consistent(lr, sr, 4) == 0.5


def test_tiles_and_strips_equal_the_whole() -> None:
    generator = Consistent(network(), 2)
    pixels = np.random.default_rng(0).random((70, 60, 3), dtype=np.float32)
    whole = upscale_picture(generator, Picture(pixels), tile_size=1000, precision="fp32").pixels
    strips = list(upscale_strips(generator, pixels, tile_size=8, strip_bytes=40_000, precision="fp32"))
    assert len(strips) > 3
    np.testing.assert_allclose(np.concatenate(strips), whole, atol=2e-6)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        Consistent(network(), 0)
