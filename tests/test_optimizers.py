import math

import pytest
import torch
from torch import nn

from sr_hub.optimizers import Muon, orthogonalise, split_weights


@pytest.mark.parametrize("shape", [(1, 8, 72), (3, 72, 8), (2, 16, 16)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    matrices = 100 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    # The quintic's fixed band is about 0.7 to 1.2; the smallest values of a square matrix need more rounds.
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_singular_vectors_stay() -> None:
    u, _, v = torch.linalg.svd(
        torch.randn(6, 20, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    matrix = u @ torch.diag(torch.tensor([3.0, 2.5, 2.0, 1.5, 1.2, 1.0])) @ v
    back = u.T @ orthogonalise(matrix[None])[0] @ v.T
    assert (back - torch.diag(back.diagonal())).abs().max() < 1e-4


def test_step_has_the_size_it_says() -> None:
    weight = nn.Parameter(torch.zeros(16, 8, 3, 3))
    optimizer = Muon([weight], learning_rate=0.1)
    weight.grad = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0)) * 1e-6
    optimizer.step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.2 * 0.1, rel=0.25)


def test_weights_of_one_shape_are_moved_each_by_its_own_gradient() -> None:
    gradients = torch.randn(3, 8, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    together = [nn.Parameter(torch.zeros(8, 4, 3, 3)) for _ in range(3)]
    for weight, gradient in zip(together, gradients, strict=True):
        weight.grad = gradient.clone()
    Muon(together, learning_rate=0.1).step()
    for weight, gradient in zip(together, gradients, strict=True):
        alone = nn.Parameter(torch.zeros(8, 4, 3, 3))
        alone.grad = gradient.clone()
        Muon([alone], learning_rate=0.1).step()
        assert torch.allclose(alone, weight, atol=1e-6)


def test_learns_a_convolution() -> None:
    torch.manual_seed(0)
    target, model = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
    matrices, rest = split_weights(model)
    optimizers = [Muon(matrices, 0.05), torch.optim.Adam(rest, 0.01)]
    losses = []
    for step in range(100):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] *= 0.5 * (1 + math.cos(math.pi * step / 100)) if step > 50 else 1
        images = torch.randn(4, 8, 12, 12)
        loss = (model(images) - target(images)).square().mean()
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_kernels_and_the_rest_are_told_apart() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    matrices, rest = split_weights(model)
    assert [tuple(weight.shape) for weight in matrices] == [(8, 8, 3, 3)]
    assert [tuple(weight.shape) for weight in rest] == [(8, 3, 3, 3), (8,), (8,)]


def test_closures_are_refused() -> None:
    with pytest.raises(ValueError, match="no closure"):
        Muon([nn.Parameter(torch.zeros(2, 2))], 0.1).step(lambda: 0.0)
