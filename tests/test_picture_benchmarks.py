"""Benchmarks of folders and of consistency measure what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import consistency, drawn_set, folder
from sr_hub.generator import SRGenerator
from sr_hub.images import read_picture


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_is_enlarged_whole_and_the_network_is_a_part_of_it(tmp_path: Path, model: Path) -> None:
    Image.effect_noise((70, 50), 60).save(tmp_path / "a.png")
    measured = folder.measure_folder(
        tmp_path / "work", str(model), pictures=4, parts=2, sources=[tmp_path / "a.png"]
    )
    results = sorted((tmp_path / "work").glob("out*/*.*g"))
    assert [path.name for path in results] == ["000.png", "001.jpg", "002.png", "003.jpg"]
    assert all(read_picture(path).pixels.shape == (2048, 2048, 3) for path in results)
    assert 0 < measured["network_seconds"] < measured["folder_seconds"] and 0 < measured["share"] < 1
    assert folder.folder_sentence(measured).startswith("A folder of 4 pictures of 512x512: ")
    with pytest.raises(RuntimeError, match="ended with 2"):
        folder._enlarge(tmp_path / "work", 0, "no-such-model")


def test_consistency_is_compared_with_none(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        hr = Image.fromarray(noise).resize((48, 48), Image.Resampling.BICUBIC)
        for name, image in (("HR", hr), ("LRx4", hr.resize((12, 12), Image.Resampling.BICUBIC))):
            (tmp_path / "Set" / name).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "Set" / name / f"{index}.png")
    rows = consistency.measure_consistency(SRGenerator.from_pretrained(model), tmp_path / "Set", (0, 5))
    assert rows[0]["change"] == rows[0]["worst"] == 0
    assert rows[1]["change"] == pytest.approx(rows[1]["psnr_y"] - rows[0]["psnr_y"])
    assert rows[1]["share"] > rows[0]["share"] and rows[1]["share"] >= rows[1]["least"]
    assert consistency.main(["--data", str(tmp_path / "Set"), "--model", str(model)]) == 0
    assert "Set:\n\n| steps" in capsys.readouterr().out
    with pytest.raises(ValueError, match="must hold HR/ and LRx4/"):
        consistency.measure_consistency(SRGenerator.from_pretrained(model), tmp_path / "Set" / "HR")


def test_the_drawn_set_lies_on_opaque_colours_beside_its_lr_images(tmp_path: Path) -> None:
    Image.new("RGBA", (490, 470), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    picture = drawn_set.portrait(tmp_path / "clear.png", seed=3)
    color = picture.getpixel((0, 0))
    assert picture.size == (480, 470) and color != (10, 20, 30)
    drawn_set.save(picture, tmp_path, "portrait-00")
    for folder_name, size in (("HR", (480, 468)), ("LRx4", (120, 117))):
        with Image.open(tmp_path / folder_name / "portrait-00.png") as image:
            assert image.size == size and image.getpixel((60, 60)) == color


def test_the_drawn_set_says_which_packages_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["drawn_set", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        drawn_set.main()
    said = capsys.readouterr().err
    assert "lacks usr/lib/python3.11/idlelib/help.html" in said and "openclipart-svg" in said
    assert not (tmp_path / "out").exists()
