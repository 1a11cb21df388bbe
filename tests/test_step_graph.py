"""On a GPU only: a replayed step equals the same step taken as usual."""

import pytest
import torch

from sr_hub.config import TrainConfig
from sr_hub.data import Batch
from sr_hub.generator import SRGenerator
from sr_hub.phases import PixelPhase

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize("expansion", [0, 2])
def test_replayed_steps_equal_plain_ones(expansion: int) -> None:
    device = torch.device("cuda")
    averages = []
    for graph in (False, True):
        torch.manual_seed(0)
        config = TrainConfig(features=8, blocks=1, expansion=expansion, graph=graph, ema_decay=0.9)
        phase = PixelPhase(SRGenerator(features=8, blocks=1), config, device, False)
        losses = []
        for step in range(12):
            random = torch.Generator().manual_seed(step)
            lr = torch.rand(2, 3, 8, 8, generator=random).to(device)
            hr = lr.repeat_interleave(4, 2).repeat_interleave(4, 3)
            losses.append(
                phase.step(Batch(1 - hr, lr, torch.zeros(2, dtype=torch.int64, device=device)), 0.5)
            )
        averages.append(phase.ema.state_dict())
        assert len({loss["pixel_loss"].item() for loss in losses}) == 12  # each step's own
    for name, value in averages[0].items():
        torch.testing.assert_close(value, averages[1][name], rtol=1e-3, atol=1e-4)
