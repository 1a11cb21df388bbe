import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sr_hub.discriminator import Discriminator
from sr_hub.losses import (
    VGG19_CONVOLUTIONS,
    ContentLoss,
    VGG19Features,
    adversarial_loss,
    discriminator_loss,
    find_vgg,
    grid_loss,
    parse_content_layers,
    pixel_loss,
)

# torchvision's numbering of VGG19's convolutions inside `features`.
NUMBERS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)


def vgg_tensors(prefix: str = "features.", count: int = 16) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = VGG19Features(["conv5_4"])
    tensors = {}
    for number, convolution in zip(NUMBERS[:count], network.convolutions, strict=False):
        tensors[f"{prefix}{number}.weight"] = convolution.weight
        tensors[f"{prefix}{number}.bias"] = convolution.bias
    return tensors


CALIBRATION = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def content_loss() -> ContentLoss:
    torch.manual_seed(0)
    content = ContentLoss({"conv1_2": 0.5, "conv2_2": 1.0})
    content.calibrate(CALIBRATION)
    return content


def test_pixel_losses_by_hand() -> None:
    sr, hr = torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([[[[0.3, 0.1]]]])
    assert pixel_loss(sr, hr, "l1").item() == pytest.approx(0.35)
    assert pixel_loss(sr, hr, "mse").item() == pytest.approx((0.09 + 0.16) / 2)
    expected = ((0.09 + 1e-6) ** 0.5 + (0.16 + 1e-6) ** 0.5) / 2
    assert pixel_loss(sr, hr, "charbonnier").item() == pytest.approx(expected)
    pair = torch.cat([sr, hr + 0.01]), torch.cat([hr, hr])
    expected = (math.log(1 + 0.125 / 1e-5) + math.log(1 + 1e-4 / 1e-5)) / 2
    assert pixel_loss(*pair, "log_mse").item() == pytest.approx(expected)
    assert pixel_loss(hr, hr, "log_mse").item() == 0


def test_pixel_loss_rejects() -> None:
    with pytest.raises(ValueError, match="one shape, got"):
        pixel_loss(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5), "l1")
    with pytest.raises(ValueError, match="l1, charbonnier, mse or log_mse, got 'l2'"):
        pixel_loss(torch.rand(1), torch.rand(1), "l2")


def test_grid_loss_by_hand() -> None:
    hr = torch.rand(1, 3, 64, 64)
    assert grid_loss(hr, hr, 4).item() == 0
    assert grid_loss(hr + 0.01, hr, 4).item() == pytest.approx(0.01, rel=1e-3)  # a shift of colour
    pattern = torch.zeros(4, 4)
    pattern[0, 0], pattern[2, 2] = 0.08, -0.08
    assert grid_loss(hr + pattern.repeat(16, 16), hr, 4).item() == pytest.approx(0.16 / 16, rel=1e-3)


def test_grid_loss_lets_texture_be() -> None:
    torch.manual_seed(0)
    hr, texture = torch.rand(1, 3, 64, 64), 0.05 * torch.randn(1, 3, 64, 64)
    assert grid_loss(hr + texture, hr, 4) < 0.15 * texture.abs().mean()


def test_adversarial_losses_by_hand() -> None:
    logits = torch.tensor([0.0, 2.0])
    minus_log_sigmoid = (0.6931472 + 0.1269280) / 2  # -log(sigmoid(0)), -log(sigmoid(2))
    assert adversarial_loss(logits).item() == pytest.approx(minus_log_sigmoid, abs=1e-6)
    assert discriminator_loss(logits, -logits).item() == pytest.approx(2 * minus_log_sigmoid, abs=1e-6)


def test_vgg_has_its_pools_where_the_paper_has_them() -> None:
    sizes = {
        name: value.shape
        for name, value in VGG19Features(["conv1_2", "conv3_4", "conv5_4"])(torch.rand(1, 3, 32, 32)).items()
    }
    assert sizes == {"conv1_2": (1, 64, 32, 32), "conv3_4": (1, 256, 8, 8), "conv5_4": (1, 512, 2, 2)}


def test_features_are_taken_before_the_activation() -> None:
    assert VGG19Features(["conv2_1"])(torch.rand(1, 3, 16, 16))["conv2_1"].min() < 0


@pytest.mark.parametrize("prefix", ["features.", "", "backbone.features."])
def test_vgg_weights_load_in_order(tmp_path: Path, prefix: str) -> None:
    tensors = vgg_tensors(prefix)
    tensors["head.fc.weight"] = torch.zeros(10, 512)
    tensors["pre_logits.fc1.weight"] = torch.zeros(6, 5, 7, 7)  # timm writes the classifier as convolutions
    tensors["pre_logits.fc2.weight"] = torch.zeros(6, 6, 1, 1)
    save_file(tensors, tmp_path / "vgg.safetensors")
    network = VGG19Features(["conv3_1"])
    network.load(tmp_path / "vgg.safetensors")
    for number, convolution in zip(NUMBERS, network.convolutions, strict=False):
        assert torch.equal(convolution.weight, tensors[f"{prefix}{number}.weight"]), number


def test_vgg_rejects_other_weights(tmp_path: Path) -> None:
    save_file(vgg_tensors(count=3), tmp_path / "few.safetensors")
    with pytest.raises(ValueError, match="VGG19's 16 first convolutions, got 3"):
        VGG19Features(["conv5_4"]).load(tmp_path / "few.safetensors")
    tensors = vgg_tensors()
    tensors["features.5.weight"] = torch.zeros(128, 32, 3, 3)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError, match=r"features.5.weight must be VGG19's conv2_1 .* got \(128, 32, 3, 3\)"
    ):
        VGG19Features(["conv5_4"]).load(tmp_path / "other.safetensors")


def test_vgg_rejects_a_broken_file_and_a_bias_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=r"broken.safetensors must be a safetensors file of VGG19's weights"):
        VGG19Features(["conv1_1"]).load(tmp_path / "broken.safetensors")
    save_file(vgg_tensors() | {"features.2.bias": torch.zeros(1)}, tmp_path / "bias.safetensors")
    with pytest.raises(ValueError, match="features.2.weight must be VGG19's conv1_2 .* and a bias"):
        VGG19Features(["conv1_2"]).load(tmp_path / "bias.safetensors")


def test_the_least_side_is_the_least(tmp_path: Path) -> None:
    for layer, least in (("conv1_2", 1), ("conv3_1", 4), ("conv5_4", 16)):
        network = VGG19Features([layer])
        assert network.least_side == least
        assert network(torch.rand(1, 3, least, least))[layer].shape[-2:] == (1, 1)


def test_missing_vgg_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name one with --vgg"):
        find_vgg(str(tmp_path / "absent.safetensors"))


def test_content_loss_does_not_change_with_the_scale_of_the_filters() -> None:
    hr, sr = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    content = content_loss()
    first = content(sr, hr)
    with torch.no_grad():
        content.features.convolutions[0].weight.mul_(4)
        content.features.convolutions[0].bias.mul_(4)
        for convolution in content.features.convolutions[1:]:
            convolution.bias.mul_(4)
    content.calibrate(CALIBRATION)
    assert content(sr, hr).item() == pytest.approx(first.item(), rel=1e-4)


def test_content_loss_is_zero_for_equal_images_and_needs_calibration() -> None:
    hr = torch.rand(1, 3, 16, 16)
    assert content_loss()(hr, hr).item() == 0
    with pytest.raises(RuntimeError, match="calibrate"):
        ContentLoss({"conv1_1": 1.0})(hr, hr)


def test_every_loss_reaches_sr_and_nothing_else() -> None:
    content, discriminator = content_loss(), Discriminator(features=4)
    hr = torch.rand(1, 3, 16, 16)
    for name in ("pixel", "content", "adversarial"):
        sr = torch.rand(1, 3, 16, 16, requires_grad=True)
        loss = {
            "pixel": lambda sr=sr: pixel_loss(sr, hr, "l1"),
            "content": lambda sr=sr: content(sr, hr),
            "adversarial": lambda sr=sr: adversarial_loss(discriminator(sr)),
        }[name]()
        loss.backward()
        assert sr.grad is not None, name
        assert sr.grad.abs().sum() > 0, name
    assert all(parameter.grad is None for parameter in content.parameters())


def test_content_layers_are_parsed() -> None:
    assert parse_content_layers("conv1_2:0.1, conv5_4:1") == {"conv1_2": 0.1, "conv5_4": 1.0}
    assert len(VGG19_CONVOLUTIONS) == 16


@pytest.mark.parametrize("text", ["conv9_1:1", "conv1_1", "conv1_1:x", "conv1_1:0", "conv1_1:inf", ""])
def test_wrong_content_layers(text: str) -> None:
    with pytest.raises(ValueError, match="content_layers"):
        parse_content_layers(text)
