import pytest
import torch

from sr_hub.discriminator import Discriminator


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 40), (50, 70)])
def test_any_even_size_gives_a_map_of_logits(height: int, width: int) -> None:
    logits = Discriminator(features=4)(torch.rand(2, 3, height, width))
    assert logits.shape == (2, 1, height // 2 // 2 // 2, width // 2 // 2 // 2)


def test_logits_are_not_squashed() -> None:
    discriminator = Discriminator(features=4)
    with torch.no_grad():
        discriminator.last.bias.fill_(5.0)
    assert discriminator(torch.rand(1, 3, 16, 16)).mean() > 3


def test_batch_equals_one_by_one() -> None:
    discriminator = Discriminator(features=4).eval()  # eval: no power iteration between the calls
    images = torch.rand(3, 3, 16, 16)
    one_by_one = torch.cat([discriminator(image[None]) for image in images])
    assert torch.allclose(discriminator(images), one_by_one, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(9, 8), (8, 6), (4, 4)])
def test_wrong_sizes(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"even sides of at least 8 pixels, got {height}x{width}"):
        Discriminator(features=4)(torch.rand(1, 3, height, width))
