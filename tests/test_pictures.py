"""The page's example pictures are what their README says."""

import re
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from sr_hub import pretrained
from sr_hub.resample import downscale_bicubic

PICTURES = Path(pretrained.__file__).parent / "pictures"
SOURCES = {
    "astronaut": ("astronaut", 2),
    "bricks": ("brick", 2),
    "cat": ("chelsea", 2),
    "coffee": ("coffee", 3),
}


def shrunk(name: str, scale: int) -> np.ndarray:
    pixels = getattr(skimage.data, name)()
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width = (side // scale * scale for side in pixels.shape[:2])
    hr = torch.tensor(pixels[:height, :width]).permute(2, 0, 1)[None].float() / 255
    lr = downscale_bicubic(hr, scale, round_to_8_bits=True)
    return np.squeeze(lr[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy())


@pytest.mark.parametrize("name", SOURCES)
def test_pictures_are_their_sources_shrunk(name: str) -> None:
    with Image.open(PICTURES / f"{name}.png") as image:
        assert max(image.size) <= 256 and not image.info
        pixels = np.asarray(image).astype(int)
    assert np.abs(pixels - shrunk(*SOURCES[name])).max() <= 1  # other versions of torch round otherwise


def test_every_picture_has_its_licence() -> None:
    rows = re.findall(
        r"^\| `(\w+)\.png` \|.*\| (CC0 1\.0|public domain) \|$", (PICTURES / "README.md").read_text(), re.M
    )
    files = {path.stem for path in PICTURES.iterdir() if path.suffix != ".md"}
    assert {name for name, _ in rows} == files == set(SOURCES)
