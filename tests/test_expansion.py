import torch
import torch.nn.functional as F

from sr_hub.expansion import expand, merged_weights
from sr_hub.generator import SRGenerator


def tiny() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(features=8, blocks=1)


def trained(generator: SRGenerator) -> SRGenerator:
    """With squeezes away from their zero start."""
    for name, parameter in generator.named_parameters():
        if name.endswith("squeeze"):
            torch.nn.init.normal_(parameter, std=0.1)
    return generator


def test_expanding_changes_nothing_at_first() -> None:
    lr = torch.rand(1, 3, 8, 8)
    generator = tiny()
    before = generator(lr)
    expand(generator, 2, seed=0)
    assert torch.equal(generator(lr), before)


def test_merged_weights_make_the_plain_network_equal() -> None:
    lr = torch.rand(1, 3, 8, 8)
    generator, plain = tiny(), tiny()
    expand(generator, 2, seed=0)
    trained(generator)
    assert not torch.allclose(generator(lr), plain(lr), atol=1e-3)
    plain.load_state_dict(merged_weights(generator))
    assert torch.equal(generator(lr), plain(lr))


def test_it_is_a_row_of_three_convolutions_beside_the_plain_one() -> None:
    generator = tiny()
    expand(generator, 2, seed=0)
    convolution = trained(generator).blocks[0].conv2
    expansion, plain = convolution.parametrizations.weight[0], convolution.parametrizations.weight.original
    x = torch.randn(1, 8, 6, 6)
    row = F.conv2d(x, expansion.expand[..., None, None])
    row = F.conv2d(row, expansion.kernel, padding=1)
    row = F.conv2d(row, expansion.squeeze[..., None, None])
    expected = F.conv2d(x, plain, convolution.bias, padding=1) + row
    assert torch.allclose(convolution(x), expected, atol=1e-5)


def test_only_3x3_kernels_of_the_trunk_are_expanded() -> None:
    generator = tiny()
    expand(generator, 2, seed=0)
    expanded = {
        name.split(".parametrizations")[0] for name, _ in generator.named_parameters() if "squeeze" in name
    }
    assert expanded == {f"blocks.0.{name}" for name in ("gate1", "conv1", "conv2")} | {"tail"}


def test_merged_names_are_those_of_a_plain_network() -> None:
    generator = tiny()
    expand(generator, 2, seed=0)
    assert set(merged_weights(generator)) == set(tiny().state_dict())
