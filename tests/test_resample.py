"""Bicubic resizing against an independent implementation of MATLAB's imresize."""

import numpy as np
import pytest
import torch

from sr_hub.resample import downscale_bicubic, upscale_bicubic


def imresize_matrix(length: int, target: int, scale: float) -> np.ndarray:
    """The ``(target, length)`` weights of one pass of imresize: its ``contributions`` function, a = -0.5."""

    def kernel(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x <= 1, near, np.where(x <= 2, far, 0))

    stretch = min(scale, 1.0)
    width = 4 / stretch
    centre = np.arange(1, target + 1) / scale + 0.5 * (1 - 1 / scale)
    indices = np.floor(centre - width / 2)[:, None] + np.arange(int(np.ceil(width)) + 2)
    weights = stretch * kernel(stretch * (centre[:, None] - indices))
    weights /= weights.sum(1, keepdims=True)
    mirror = np.r_[np.arange(length), np.arange(length)[::-1]]
    matrix = np.zeros((target, length))
    for row, (columns, values) in enumerate(
        zip(mirror[(indices.astype(int) - 1) % (2 * length)], weights, strict=True)
    ):
        np.add.at(matrix[row], columns, values)
    return matrix


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_downscale_equals_imresize(scale: int) -> None:
    hr = torch.rand(1, 2, 12 * scale, 9 * scale, dtype=torch.float64)
    rows = imresize_matrix(12 * scale, 12, 1 / scale)
    columns = imresize_matrix(9 * scale, 9, 1 / scale)
    expected = rows @ hr.numpy() @ columns.T
    assert np.abs(downscale_bicubic(hr, scale).numpy() - expected).max() < 1e-12
    assert np.abs(downscale_bicubic(hr.float(), scale).numpy() - expected).max() < 2e-6


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_upscale_equals_imresize(scale: int) -> None:
    lr = torch.rand(1, 2, 12, 9, dtype=torch.float64)
    rows, columns = imresize_matrix(12, 12 * scale, scale), imresize_matrix(9, 9 * scale, scale)
    expected = rows @ lr.numpy() @ columns.T
    assert np.abs(upscale_bicubic(lr, scale).numpy() - expected).max() < 1e-12
    assert np.abs(upscale_bicubic(lr.float(), scale).numpy() - expected).max() < 1e-5


def test_rounding_happens_after_each_pass() -> None:
    hr = torch.rand(1, 1, 32, 24, dtype=torch.float64).mul(255).round() / 255
    rows, columns = imresize_matrix(32, 8, 0.25), imresize_matrix(24, 6, 0.25)
    between = np.clip(np.rint(rows @ hr.numpy() * 255), 0, 255)
    expected = np.clip(np.rint(between @ columns.T), 0, 255)
    result = downscale_bicubic(hr, 4, round_to_8_bits=True).mul(255).numpy()
    # A value within float noise of a half may round the other way.
    assert (np.abs(result - expected) > 1e-6).mean() < 0.01


@pytest.mark.parametrize("size", [1, 2, 3])
def test_images_smaller_than_the_kernel(size: int) -> None:
    lr = torch.full((1, 3, size, size), 0.5)
    assert torch.allclose(upscale_bicubic(lr, 4), torch.full((1, 3, 4 * size, 4 * size), 0.5), atol=1e-5)
    hr = upscale_bicubic(lr, 4)
    assert torch.allclose(downscale_bicubic(hr, 4), lr, atol=1e-5)


def test_flip_commutes() -> None:
    lr = torch.rand(1, 3, 7, 10)
    assert torch.allclose(upscale_bicubic(lr.flip(3), 4), upscale_bicubic(lr, 4).flip(3), atol=1e-5)


def test_gradient_reaches_the_input() -> None:
    hr = torch.rand(1, 3, 16, 16, requires_grad=True)
    downscale_bicubic(hr, 4).sum().backward()
    assert hr.grad is not None
    assert torch.allclose(hr.grad, torch.full_like(hr.grad, 1 / 16), atol=0.02)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 8, 8), r"\(N, C, H, W\), got torch.float32 \(3, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "got torch.uint8"),
        (torch.rand(1, 3, 9, 8), "multiples of the scale 4, got 9x8"),
    ],
)
def test_wrong_input(image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        downscale_bicubic(image, 4)
