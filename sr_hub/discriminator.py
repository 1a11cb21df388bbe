"""The discriminator of the adversarial phase."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """A patch discriminator: each logit judges one neighbourhood, so any crop size works.

    Strided convolutions with spectral normalisation (Miyato et al., 2018, arXiv:1802.05957) and no batch
    statistics. Space-to-depth comes first, so that nothing runs at full HR resolution.

    Args:
        features: Channels of the first level; they double at each of the two strided convolutions.
    """

    def __init__(self, *, features: int = 48) -> None:
        super().__init__()
        f = features
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(12, f, 3, padding=1),
                spectral_norm(nn.Conv2d(f, 2 * f, 4, stride=2, padding=1)),
                spectral_norm(nn.Conv2d(2 * f, 2 * f, 3, padding=1)),
                spectral_norm(nn.Conv2d(2 * f, 4 * f, 4, stride=2, padding=1)),
                spectral_norm(nn.Conv2d(4 * f, 4 * f, 3, padding=1)),
            ]
        )
        self.last = nn.Conv2d(4 * f, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits, above 0 for HR and below 0 for SR: ``(N, 3, H, W)`` in [0, 1] to ``(N, 1, H/8, W/8)``.

        Raises:
            ValueError: If H or W is not a multiple of 2, or is below 8.
        """
        height, width = image.shape[-2:]
        if height % 2 or width % 2 or min(height, width) < 8:
            raise ValueError(f"discriminator needs even sides of at least 8 pixels, got {height}x{width}")
        x = F.pixel_unshuffle(2 * image - 1, 2)  # (N, 12, H/2, W/2)
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), 0.2)
        return self.last(x)
