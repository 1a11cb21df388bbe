"""Sheets hold the right pixels in the right place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_hub.evaluation import Sample
from sr_hub.sheet import CentreCrops, SheetRow, WorstCrops, save_sheet


def flat(level: int, height: int = 20, width: int = 30) -> torch.Tensor:
    return torch.full((1, 3, height, width), level / 255)


def test_sheet_places_bicubic_sr_and_hr_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    save_sheet(
        path,
        [
            SheetRow("one — ü 日", flat(10), flat(20), flat(30)),
            SheetRow("two", flat(40, 8), flat(50, 8) * 9, flat(60, 8) * -1),
        ],
    )
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image)
    # 3 columns of 30 with gaps of 4; a title line of 14, then per row a line of 14, the row and a gap of 4.
    assert pixels.shape == (14 + (14 + 20 + 4) + (14 + 8 + 4), 98, 3)
    for column, levels in enumerate([(10, 40), (20, 255), (30, 0)]):
        left = column * 34
        assert (pixels[28:48, left : left + 30] == levels[0]).all()
        assert (pixels[66:74, left : left + 30] == levels[1]).all()
    assert (pixels[28:48, 30:34] == 255).all()
    for top in (0, 14, 52):  # there is some writing
        assert pixels[top : top + 14].min() < 100


def test_sheet_keeps_colours(tmp_path: Path) -> None:
    red = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    save_sheet(tmp_path / "sheet.png", [SheetRow("red", red, red, red)])
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.getpixel((4, 32)) == (255, 128, 0)


def test_sheet_rejects_nothing_and_unequal_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        save_sheet(tmp_path / "sheet.png", [])
    with pytest.raises(ValueError, match="odd: images of a row must have one size"):
        save_sheet(tmp_path / "sheet.png", [SheetRow("odd", flat(1), flat(1), flat(1, 21))])
    assert not (tmp_path / "sheet.png").exists()


def sample_with_error(name: str, top: int, left: int, strength: float) -> tuple[Sample, torch.Tensor]:
    hr = torch.zeros(1, 3, 64, 96)
    sr = hr.clone()
    sr[..., top : top + 16, left : left + 16] = strength
    return Sample(name, hr, hr[..., ::4, ::4]), sr


def test_worst_crops_finds_where_the_error_is() -> None:
    worst = WorstCrops(count=2, size=16)
    for name, strength in (("mild", 0.1), ("bad", 0.9), ("middling", 0.5)):
        sample, sr = sample_with_error(name, 32, 48, strength)
        worst(sample, sample.hr, sr)
    assert [row.title.split()[0] for row in worst.rows] == ["bad", "middling"]
    # Black has Y 16 and grey 0.9 has Y 16 + 0.9 * 219, all over this crop.
    assert worst.rows[0].title == "bad  row 32, column 48  error 197.1 of 255"
    assert torch.equal(worst.rows[0].sr, torch.full((1, 3, 16, 16), 0.9))


def test_worst_crops_takes_a_small_image_whole() -> None:
    worst = WorstCrops(size=128)
    sample, sr = sample_with_error("small", 0, 0, 0.5)
    worst(sample, sample.hr, sr)
    assert torch.equal(worst.rows[0].sr, sr)


def test_centre_crops_keeps_the_first_images() -> None:
    crops = CentreCrops(count=2, size=16)
    for index in range(3):
        sample, sr = sample_with_error(str(index), 24, 40, 0.5)
        crops(sample, sample.hr, sr)
    assert [row.title for row in crops.rows] == ["0", "1"]
    assert torch.equal(crops.rows[0].sr, torch.full((1, 3, 16, 16), 0.5))
