from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sr_hub.config import TrainConfig
from sr_hub.data import Batch
from sr_hub.generator import SRGenerator
from sr_hub.losses import VGG19Features
from sr_hub.metrics import LPIPS
from sr_hub.phases import AdversarialPhase, PixelPhase, check_adversarial

CPU = torch.device("cpu")
TERMS = ("pixel_weight", "grid_weight", "content_weight", "lpips_weight", "adversarial_weight")
CONFIG = TrainConfig(
    features=8, blocks=1, warmup_steps=0, learning_rate=2e-3, expansion=0,
    content_layers="conv1_2:1", discriminator_features=4,
)  # fmt: skip


def start() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(features=8, blocks=1)


def batch(seed: int = 0, side: int = 8) -> Batch:
    """A target that is easy to learn and far from the network's start: the negative."""
    lr = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return Batch((1 - lr).repeat_interleave(4, 2).repeat_interleave(4, 3), lr)


@pytest.fixture
def vgg(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = VGG19Features(["conv1_2"])
    tensors = {}
    for number, convolution in zip((0, 2), network.convolutions, strict=True):
        tensors[f"features.{number}.weight"] = convolution.weight
        tensors[f"features.{number}.bias"] = convolution.bias
    save_file(tensors, tmp_path / "vgg.safetensors")
    return tmp_path / "vgg.safetensors"


@pytest.fixture
def lpips(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tensors = LPIPS().state_dict()
    save_file({n: t.abs() if n.startswith("lin") else t for n, t in tensors.items()}, tmp_path / "lpips")
    return tmp_path / "lpips"


def adversarial(vgg: Path | None, config: TrainConfig = CONFIG) -> AdversarialPhase:
    return AdversarialPhase(start(), config, CPU, False, vgg=vgg, calibration=batch(9).hr)


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
@pytest.mark.parametrize("expansion", [0, 2])
def test_pixel_phase_learns_one_patch(optimizer: str, expansion: int) -> None:
    phase = PixelPhase(
        start(),
        TrainConfig(features=8, blocks=1, optimizer=optimizer, expansion=expansion, learning_rate=0.02),
        CPU,
        False,
    )
    losses = [phase.step(batch(), 0.99**i)["pixel_loss"].item() for i in range(150)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_network_without_weights_for_muon_learns_by_adam() -> None:
    config = replace(CONFIG, features=2, optimizer="muon")
    phase = PixelPhase(SRGenerator(features=2, blocks=1), config, CPU, False)
    first = phase.step(batch(), 1.0)["pixel_loss"]
    for _ in range(30):
        last = phase.step(batch(), 1.0)["pixel_loss"]
    assert last < first


def test_the_average_follows_the_weights_and_stays_plain() -> None:
    config = TrainConfig(features=8, blocks=1, expansion=2, ema_decay=0.0)
    phase = PixelPhase(start(), config, CPU, False)
    phase.step(batch(), 1.0)
    lr = batch().lr
    assert torch.allclose(phase.ema(lr), phase.generator(lr), atol=1e-6)
    assert set(phase.ema.state_dict()) == set(start().state_dict())


def test_rate_zero_moves_nothing() -> None:
    phase = PixelPhase(start(), CONFIG, CPU, False)
    phase.step(batch(), 0.0)
    assert all(
        torch.equal(a, b) for a, b in zip(phase.generator.parameters(), start().parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["pixel", "adversarial"])
def test_a_restored_phase_goes_on_bit_equally(name: str, vgg: Path) -> None:
    config = TrainConfig(
        features=8, blocks=1, expansion=1, content_layers="conv1_2:1", discriminator_features=4
    )

    def new() -> PixelPhase | AdversarialPhase:
        return PixelPhase(start(), config, CPU, False) if name == "pixel" else adversarial(vgg, config)

    whole, first, second = new(), new(), new()
    for step in range(4):
        whole.step(batch(step), 1.0)
        (first if step < 2 else second).step(batch(step), 1.0)
        if step == 1:
            second.load({key: value.clone() for key, value in first.state().items()})
    expected, result = whole.state(), second.state()
    assert set(expected) == set(result)
    for key, value in expected.items():
        assert torch.equal(value, result[key]), key


def test_the_generator_step_leaves_the_discriminator_alone_and_vice_versa(vgg: Path) -> None:
    config = TrainConfig(
        features=8, blocks=1, content_layers="conv1_2:1", discriminator_features=4,
        pixel_weight=0.0, grid_weight=0.0, content_weight=0.0, adversarial_weight=1.0,
    )  # fmt: skip
    phase = adversarial(vgg, config)
    judge, author = phase.discriminator_optimizers, phase.generator_optimizers
    before = [p.detach().clone() for p in phase.discriminator.parameters()]
    judge.step = lambda: None  # type: ignore[method-assign]  # only the generator moves
    phase.step(batch(), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, phase.discriminator.parameters(), strict=True))
    generator_before = [p.detach().clone() for p in phase.generator.parameters()]
    del judge.step
    author.step = lambda: None  # type: ignore[method-assign]  # only the discriminator moves
    phase.step(batch(), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(generator_before, phase.generator.parameters(), strict=True))
    moved = [not torch.equal(a, b) for a, b in zip(before, phase.discriminator.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_moves_the_generator(term: str, vgg: Path, lpips: Path) -> None:
    weights = {name: float(name == term) for name in TERMS}
    config = replace(CONFIG, lpips=str(lpips) if weights["lpips_weight"] else None, **weights)
    phase = adversarial(vgg if weights["content_weight"] else None, config)
    losses = phase.step(batch(side=12), 1.0)
    assert ("content_loss" in losses, "lpips_loss" in losses) == (
        term == "content_weight",
        term == "lpips_weight",
    )
    for name, parameter in phase.generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    judges = [judge for judge in (phase.content, phase.lpips) if judge is not None]
    assert all(p.grad is None for judge in judges for p in judge.parameters())


def test_the_discriminator_learns_to_tell(vgg: Path) -> None:
    config = TrainConfig(
        features=8, blocks=1, content_layers="conv1_2:1", discriminator_features=8,
        adversarial_weight=0.0, discriminator_learning_rate=0.01,
    )  # fmt: skip
    phase = adversarial(vgg, config)
    for _ in range(60):
        losses = phase.step(batch(), 1.0)
    assert losses["probability_hr"] > 0.7
    assert losses["probability_sr"] < 0.3


def test_content_and_discriminator_see_the_window_that_the_batch_says(vgg: Path) -> None:
    """Else the grid of their strides stays in one place and shows in the results."""
    phase, seen = adversarial(vgg), []
    phase.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert phase.content is not None
    phase.content.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    shifted = Batch(batch().hr, batch().lr, shift=torch.tensor([3, 5]))
    phase.step(shifted, 1.0)
    window = shifted.hr[..., 3 : 3 + 24, 5 : 5 + 24]
    assert [tuple(image.shape[-2:]) for image in seen] == [(24, 24)] * 3
    assert torch.equal(seen[1], window)  # the content loss's hr
    assert torch.equal(seen[2][:2], window)  # the discriminator's hr, before its sr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content_layers": "conv9_1:1"}, "content_layers takes conv1_1 to conv5_4"),
        ({"content_layers": "conv5_4:1"}, "must hold VGG19's 16 first convolutions, got 2"),
        ({"adversarial_patch_size": 3}, r"even number of at least 16 HR pixels, got 3 \* 4 = 12"),
        ({"adversarial_patch_size": 1}, r"even number of at least 16 HR pixels, got 1 \* 4 = 4"),
        ({"adversarial_patch_size": 33, "scale": 3}, r"even number of .*, got 33 \* 3 = 99"),
        (
            {"adversarial_patch_size": 5, "content_layers": "conv5_4:1"},
            r"even number of at least 24 HR pixels, got 5 \* 4 = 20",
        ),
    ],
)
def test_what_phase_2_cannot_work_with_is_found_beforehand(vgg: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_adversarial(replace(CONFIG, **change), vgg)


def test_lpips_is_read_beforehand_and_its_smallest_crop_trains(vgg: Path, lpips: Path) -> None:
    config = replace(CONFIG, lpips=str(lpips), lpips_weight=1.0, adversarial_patch_size=10)
    with pytest.raises(ValueError, match="does not hold LPIPS"):
        check_adversarial(replace(config, lpips=str(vgg)), None)
    with pytest.raises(FileNotFoundError, match="no LPIPS weights file at /no/lpips"):
        check_adversarial(replace(config, lpips="/no/lpips"), None)
    with pytest.raises(ValueError, match=r"even number of at least 39 HR pixels, got 9 \* 4 = 36"):
        check_adversarial(replace(config, adversarial_patch_size=9), None)
    check_adversarial(config, None)
    phase = adversarial(None, config)
    assert all(value.isfinite() for value in phase.step(batch(1, 10), 1.0).values())


def test_the_smallest_patch_that_passes_trains(vgg: Path) -> None:
    config = replace(CONFIG, adversarial_patch_size=4)
    random = torch.get_rng_state()
    check_adversarial(config, vgg)
    assert torch.equal(torch.get_rng_state(), random)
    phase = AdversarialPhase(start(), config, CPU, False, vgg=vgg, calibration=batch(9, 4).hr)
    assert all(value.isfinite() for value in phase.step(batch(1, 4), 1.0).values())
