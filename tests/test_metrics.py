"""Metrics against hand-computed values, scikit-image and a slow independent LPIPS."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from sr_hub.metrics import LPIPS, luma, psnr_y, round_to_8_bits, ssim_y


def random_images(count: int = 2, height: int = 40, width: int = 52, seed: int = 0) -> Tensor:
    """8-bit images, so that rounding inside the metrics changes nothing."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).float() / 255


def noisy(image: Tensor, strength: float = 0.1) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return round_to_8_bits(image + strength * noise)


def numpy_luma(image: Tensor) -> np.ndarray:
    """Y in float64 by numpy, ``(H, W)``."""
    red, green, blue = (image.double() * 255).round().numpy()
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        # MATLAB: rgb2ycbcr([1 0 0]) * 255 and so on.
        ((1, 0, 0), 81.481),
        ((0, 1, 0), 144.553),
        ((0, 0, 1), 40.966),
        ((0, 0, 0), 16.0),
        ((1, 1, 1), 235.0),
    ],
)
def test_luma_of_pure_colours(rgb: tuple[int, int, int], expected: float) -> None:
    image = torch.tensor(rgb, dtype=torch.float64).view(1, 3, 1, 1)
    assert luma(image).item() == pytest.approx(expected, abs=1e-9)


def test_psnr_y_of_a_constant_difference() -> None:
    # One grey level apart everywhere: Y differs by 219/255, so PSNR = 20 log10(255 * 255 / 219) dB.
    hr = torch.full((1, 3, 8, 8), 100 / 255)
    assert psnr_y(hr + 1 / 255, hr, 0).item() == pytest.approx(20 * math.log10(255 * 255 / 219), abs=1e-6)


def test_psnr_y_rounds_to_8_bits() -> None:
    hr = torch.full((1, 3, 8, 8), 100 / 255)
    assert psnr_y(hr + 0.4 / 255, hr, 0).item() == math.inf
    assert psnr_y(hr + 0.6 / 255, hr, 0) == psnr_y(hr + 1 / 255, hr, 0)


def test_psnr_y_clamps_overshoot() -> None:
    white = torch.ones(1, 3, 8, 8)
    assert psnr_y(white * 1.7, white, 0).item() == math.inf


def test_border_pixels_do_not_count() -> None:
    hr = random_images(1)
    sr = hr.clone()
    sr[..., :4, :] = sr[..., -4:, :] = sr[..., :4] = sr[..., -4:] = 0
    assert psnr_y(sr, hr, 4).item() == math.inf
    assert ssim_y(sr, hr, 4).item() == pytest.approx(1, abs=1e-12)
    assert psnr_y(sr, hr, 3).item() < 40


@pytest.mark.parametrize("border", [0, 4])
def test_psnr_y_agrees_with_scikit_image(border: int) -> None:
    hr = random_images()
    sr = noisy(hr)
    inside = slice(border, -border or None)
    for index, value in enumerate(psnr_y(sr, hr, border)):
        pair = [numpy_luma(image[index])[inside, inside] for image in (hr, sr)]
        assert value.item() == pytest.approx(peak_signal_noise_ratio(*pair, data_range=255), abs=1e-6)


@pytest.mark.parametrize("border", [0, 4])
def test_ssim_y_agrees_with_scikit_image(border: int) -> None:
    hr = F.avg_pool2d(random_images(2, 160, 208), 4)
    hr = round_to_8_bits((hr - 0.5) * 3 + 0.5)
    sr = noisy(hr, 0.05)
    inside = slice(border, -border or None)
    for index, value in enumerate(ssim_y(sr, hr, border)):
        pair = [numpy_luma(image[index])[inside, inside] for image in (hr, sr)]
        # truncate=3.33 at sigma 1.5 makes scikit-image's window 11x11; it averages over the valid region
        # only when it crops the same 5 pixels, which it does.
        expected = structural_similarity(
            *pair,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            truncate=3.33,
        )
        assert value.item() == pytest.approx(expected, abs=1e-6)


def test_ssim_y_of_two_flat_images() -> None:
    # No variance, so only the luminance term is left: (2ab + c1) / (a^2 + b^2 + c1).
    black, white = torch.zeros(1, 3, 11, 11), torch.ones(1, 3, 11, 11)
    c1 = (0.01 * 255) ** 2
    expected = (2 * 16 * 235 + c1) / (16**2 + 235**2 + c1)
    assert ssim_y(black, white, 0).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_batch_equals_one_by_one(metric) -> None:
    hr = random_images(3)
    sr = noisy(hr)
    together = metric(sr, hr, 4)
    alone = torch.cat([metric(sr[i : i + 1], hr[i : i + 1], 4) for i in range(3)])
    assert together.shape == (3,) and together.dtype == torch.float64
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("metric", [psnr_y, ssim_y])
def test_metrics_reject_what_they_cannot_compare(metric) -> None:
    image = torch.zeros(1, 3, 12, 12)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\), got \(3, 12, 12\)"):
        metric(image[0], image[0], 0)
    with pytest.raises(ValueError, match=r"one shape, got \(1, 3, 12, 12\) and \(1, 3, 12, 11\)"):
        metric(image, image[..., :-1], 0)
    with pytest.raises(ValueError, match="border must be at least 0 pixels, got -1"):
        metric(image, image, -1)
    with pytest.raises(ValueError, match="border of 6 pixels must leave at least .* which are 12x12"):
        metric(image, image, 6)


def test_ssim_y_needs_a_whole_window() -> None:
    image = torch.zeros(1, 3, 18, 30)
    assert ssim_y(image, image, 3).item() == 1
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim_y(image, image, 4)


@pytest.fixture(scope="module")
def lpips_weights() -> dict[str, Tensor]:
    """Random weights under the keys of the published file; `lin` weights are not negative there either."""
    generator = torch.Generator().manual_seed(3)
    shapes = {name: tensor.shape for name, tensor in LPIPS().state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        weights[name] = weight.abs() if name.startswith("lin") else weight
    return weights


@pytest.fixture
def lpips_file(lpips_weights: dict[str, Tensor], tmp_path: Path) -> Path:
    save_file(lpips_weights, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


def reference_lpips(weights: dict[str, Tensor], sr: Tensor, hr: Tensor) -> Tensor:
    """LPIPS written out step by step from the paper's equation 1, in float64."""

    def features(image: Tensor) -> list[Tensor]:
        shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).view(1, 3, 1, 1)
        spread = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).view(1, 3, 1, 1)
        x = (image.double() * 2 - 1 - shift) / spread
        maps = []
        for layer, stride, padding, pool in [
            (0, 4, 2, 0),
            (3, 1, 2, 1),
            (6, 1, 1, 1),
            (8, 1, 1, 0),
            (10, 1, 1, 0),
        ]:
            if pool:
                x = F.max_pool2d(x, 3, 2)
            kernel, bias = (
                weights[f"features.{layer}.weight"].double(),
                weights[f"features.{layer}.bias"].double(),
            )
            x = F.relu(F.conv2d(x, kernel, bias, stride=stride, padding=padding))
            maps.append(F.normalize(x, dim=1, eps=1e-10))
        return maps

    total = torch.zeros(sr.shape[0], dtype=torch.float64)
    for index, (x, y) in enumerate(zip(features(sr), features(hr), strict=True)):
        total += ((x - y) ** 2 * weights[f"lin{index}.weight"].double()).sum(1).mean((1, 2))
    return total


def test_lpips_agrees_with_a_reference(lpips_weights: dict[str, Tensor], lpips_file: Path) -> None:
    hr = random_images(2, 64, 75)
    sr = noisy(hr)
    distance = LPIPS.from_file(lpips_file)(sr, hr)
    expected = reference_lpips(lpips_weights, sr, hr)
    assert expected.min() > 0.005
    torch.testing.assert_close(distance.double(), expected, rtol=1e-4, atol=1e-6)


def test_lpips_is_a_distance(lpips_file: Path) -> None:
    lpips = LPIPS.from_file(lpips_file)
    hr = random_images(1, 48, 48)
    assert lpips(hr, hr).item() == 0
    slightly, badly = noisy(hr, 0.02), noisy(hr, 0.2)
    assert 0 < lpips(slightly, hr) < lpips(badly, hr)
    assert lpips(badly, hr) == lpips(hr, badly)
    assert not lpips.training
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_lpips_to_train_with_is_the_same_distance_with_gradients(lpips_file: Path) -> None:
    lpips = LPIPS.from_file(lpips_file)
    hr = random_images(2, 48, 48)
    hr[1, :, :40] = 0  # where all features of a place may be 0, at which a root has no gradient
    sr = noisy(hr).requires_grad_()
    distance = lpips.distance(sr, hr)
    assert torch.equal(distance.detach(), lpips(sr, hr))
    distance.sum().backward()
    assert sr.grad is not None
    assert sr.grad.isfinite().all()
    assert sr.grad.abs().sum() > 0
    nearer = lpips(round_to_8_bits(sr.detach() - 0.02 * sr.grad.sign()), hr)
    assert (nearer < distance).all()


def test_lpips_to_train_with_has_a_gradient_where_all_features_are_0() -> None:
    lpips = LPIPS()
    for parameter in lpips.parameters():
        torch.nn.init.zeros_(parameter)
    sr = torch.rand(1, 3, 32, 32, requires_grad=True)
    lpips.distance(sr, torch.rand(1, 3, 32, 32)).sum().backward()
    assert sr.grad is not None
    assert sr.grad.isfinite().all()


def test_lpips_reads_half_precision_into_float32(lpips_weights: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: weight.half() for name, weight in lpips_weights.items()}, tmp_path / "half.safetensors")
    lpips = LPIPS.from_file(tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in lpips.parameters()} == {torch.float32}


def test_lpips_loads_strictly(lpips_weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="no LPIPS weights file at .*weights"):
        LPIPS.from_file(path)
    path.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        LPIPS.from_file(path)
    save_file({name: weight for name, weight in lpips_weights.items() if name != "lin3.weight"}, path)
    with pytest.raises(ValueError, match="lin3.weight"):
        LPIPS.from_file(path)
    save_file({**lpips_weights, "features.99.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="features.99.weight"):
        LPIPS.from_file(path)
    save_file({**lpips_weights, "lin0.weight": torch.zeros(1, 63, 1, 1)}, path)
    with pytest.raises(ValueError, match="size mismatch for lin0.weight"):
        LPIPS.from_file(path)


def test_lpips_rejects_small_images() -> None:
    lpips = LPIPS()
    assert lpips(torch.zeros(1, 3, 31, 31), torch.zeros(1, 3, 31, 31)).item() == 0
    with pytest.raises(ValueError, match=r"at least 31x31 pixels, got \(1, 3, 30, 40\)"):
        lpips(torch.zeros(1, 3, 30, 40), torch.zeros(1, 3, 30, 40))
