"""How noisy pictures are: quantiles over a folder, as they are or after a degradation.

    python benchmarks/noise_levels.py FOLDER
    python benchmarks/noise_levels.py FOLDER --degradation photo

A picture's noise is the standard deviation, in 8-bit levels, that Immerkaer's mask finds in the flattest
fifth of its 12x12 patches (Fast Noise Variance Estimation, Computer Vision and Image Understanding 64, 1996).
Patches that are mostly black or white are left out, as noise is cut off there.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_hub.data import decode, list_images
from sr_hub.degradations import DEGRADATIONS

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_MASK = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
_PATCH, _STEP = 12, 6


def noise_level(image: Tensor) -> float:
    """Standard deviation of the noise of ``image`` ``(1, 3, H, W)`` in [0, 1], in 8-bit levels.

    Raises:
        ValueError: If it is smaller than 14x14.
    """
    if min(image.shape[-2:]) < _PATCH + 2:
        raise ValueError(f"image must be at least 14x14, got {image.shape[-1]}x{image.shape[-2]}")
    luma = 255 * torch.einsum("nchw,c->nhw", image, image.new_tensor([0.299, 0.587, 0.114]))[:, None]
    levels = F.avg_pool2d(F.conv2d(luma, _MASK[None, None]).abs(), _PATCH, _STEP).flatten()
    cut_off = ((luma < 3) | (luma > 252)).float()[..., 1:-1, 1:-1]
    usable = F.avg_pool2d(cut_off, _PATCH, _STEP).flatten() < 0.2
    levels = levels[usable] if usable.any() else levels
    return math.sqrt(math.pi / 2) * levels.kthvalue(max(1, len(levels) // 5)).values.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--degradation", choices=sorted(DEGRADATIONS), help="shrink the pictures 4x by it")
    arguments = parser.parse_args()
    levels = []
    for index, path in enumerate(list_images(arguments.folder)):
        image = torch.tensor(decode(path)).permute(2, 0, 1)[None].float() / 255
        if arguments.degradation:
            height, width = (side // 4 * 4 for side in image.shape[-2:])
            random = torch.Generator().manual_seed(index)
            image = DEGRADATIONS[arguments.degradation](image[..., :height, :width], 4, [random])
        levels.append(noise_level(image))
    found = torch.quantile(torch.tensor(levels), torch.tensor(QUANTILES))
    print(f"{len(levels)} pictures; noise of a share of {', '.join(map(str, QUANTILES))} is at most")
    print("  ".join(f"{value:.2f}" for value in found))


if __name__ == "__main__":
    main()
