"""The comparison under other damage: its damage, its second distance and what it writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks import damages
from benchmarks.damages import DAMAGES, VGG19Distance, as_table, damaged
from benchmarks.quality import Result, compare
from sr_hub.evaluation import Pair
from sr_hub.generator import SRGenerator
from sr_hub.losses import VGG19Features
from sr_hub.metrics import LPIPS


@pytest.fixture
def vgg(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    names = VGG19Features(["conv5_4"]).state_dict()
    renamed = {}
    for name, value in names.items():
        _, index, kind = name.split(".")
        renamed[f"features.{index}.{kind}"] = torch.randn(value.shape) * (0.02 if value.ndim > 1 else 0.1)
    save_file(renamed, tmp_path / "vgg.safetensors")
    return tmp_path / "vgg.safetensors"


@pytest.fixture
def lpips(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(LPIPS().state_dict(), tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "Pictures"
    folder.mkdir()
    for index in range(12):
        noise = np.random.default_rng(index).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize((70, 62), Image.Resampling.BICUBIC)
        picture.save(folder / f"{index:02}.png")
    return folder


def test_the_distance_of_vgg_is_what_its_words_say(vgg: Path) -> None:
    distance = VGG19Distance(vgg)
    random = torch.Generator().manual_seed(1)
    sr, hr = (torch.rand(2, 3, 40, 33, generator=random).mul(255).round() / 255 for _ in range(2))
    x, y = distance.features(sr), distance.features(hr)
    expected = torch.zeros(2, dtype=torch.float64)
    for name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"):
        a, b = (np.maximum(features[name].double().numpy(), 0) for features in (x, y))
        a, b = (v / np.maximum(np.sqrt((v * v).sum(1, keepdims=True)), 1e-12) for v in (a, b))
        expected += torch.from_numpy(((a - b) ** 2).sum(1).mean((1, 2)))
    torch.testing.assert_close(distance(sr, hr).double(), expected, rtol=1e-4, atol=1e-6)
    assert (expected > 0.01).all() and distance(sr, sr).abs().max() == 0


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_drawn_alike_each_time_and_hr_stays(name: str, pictures: Path, tmp_path: Path) -> None:
    pairs = [Pair(path.name, path) for path in sorted(pictures.iterdir())[:2]]
    first, second = (damaged(pairs, name, tmp_path / str(n)) for n in range(2))
    for pair, one, other in zip(pairs, first, second, strict=True):
        assert one.lr is not None and other.lr is not None
        lr = np.asarray(Image.open(one.lr))
        assert lr.shape == (15, 17, 3) and (lr == np.asarray(Image.open(other.lr))).all()
        hr = np.asarray(Image.open(pair.hr))[:60, :68]
        assert (np.asarray(Image.open(one.hr)) == hr).all()
        small = np.asarray(Image.fromarray(hr).resize((17, 15), Image.Resampling.BICUBIC)).astype(float)
        if name != "photo":  # which leaves some pictures nearly alone
            assert 2 < np.abs(lr - small).mean() < 40


def test_old_pictures_are_damaged_most(pictures: Path, tmp_path: Path) -> None:
    pairs = [Pair(path.name, path) for path in sorted(pictures.iterdir())]
    errors = []
    for name in ("web", "phone", "old"):
        found = []
        for pair in damaged(pairs, name, tmp_path / name):
            assert pair.lr is not None
            with Image.open(pair.lr) as lr, Image.open(pair.hr) as hr:
                large = np.asarray(lr.resize(hr.size, Image.Resampling.BICUBIC)).astype(float)
                found.append(np.square(large - np.asarray(hr)).mean())
        errors.append(np.mean(found))
    assert errors[2] > 1.1 * max(errors[:2])


def test_the_command_measures_every_eighth_picture(
    pictures: Path,
    vgg: Path,
    lpips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    ends = [SRGenerator(features=4, blocks=1) for _ in range(2)]
    ends[0].save_pretrained(tmp_path / "mine", fidelity=ends[1])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- damages:start -->\nold\n<!-- damages:end -->\nafter\n")
    arguments = ["--data", pictures, "--lpips", lpips, "--vgg", vgg, "--model", tmp_path / "mine"]
    arguments += ["--no-peers", "--out", tmp_path / "out", "--markdown", page]

    def compare_while_the_page_is_edited(*arguments: Any, **settings: Any) -> list[Result]:
        page.write_text(page.read_text().replace("after\n", "edited\n"))
        return compare(*arguments, **settings)

    monkeypatch.setattr(damages, "compare", compare_while_the_page_is_edited)
    two = {name: DAMAGES[name] for name in ("web", "old")}  # each starts all contenders anew
    monkeypatch.setattr(damages, "DAMAGES", two)
    assert damages.main([str(argument) for argument in arguments]) == 0
    content = json.loads((tmp_path / "out" / "damages.json").read_text())
    assert content["pictures"] == ["03.png", "11.png"] and list(content["quality"]) == list(two)
    names = ["ours: mine, fidelity 1", "ours: mine, fidelity 0.25", "ours: mine, fidelity 0"]
    for results in content["quality"].values():
        assert [result["name"] for result in results] == [*names, "bicubic (Pillow)"]
        assert all(result["error"] is None and result["vgg19"] > 0 for result in results)
    table = capsys.readouterr().out
    assert page.read_text() == f"before\n<!-- damages:start -->\n{table}<!-- damages:end -->\nedited\n"
    assert table.startswith("| | web | old |\n|---|---|---|\n| ours: mine, fidelity 1 |")


def test_who_could_not_run_stays_in_the_table() -> None:
    results = {"web": [Result("a", 20.5, 0.25, vgg19=3.0), Result("b", error="ImportError: no b")]}
    assert as_table(results).splitlines()[2:] == [
        "| a | 20.50 / 0.250 / 3.000 |",
        "| b | could not run: ImportError: no b |",
    ]


def test_wrong_input_is_told_before_the_work(pictures: Path, vgg: Path, lpips: Path, tmp_path: Path) -> None:
    common = ["--lpips", str(lpips), "--vgg", str(vgg), "--no-peers", "--out", str(tmp_path / "out")]
    (tmp_path / "page.md").write_text("no markers")
    with pytest.raises(ValueError, match="expected <!-- damages:start -->"):
        damages.main(["--data", str(pictures), "--markdown", str(tmp_path / "page.md"), *common])
    for path in sorted(pictures.iterdir())[3:]:
        path.unlink()
    with pytest.raises(ValueError, match="must hold at least 4 pictures"):
        damages.main(["--data", str(pictures), *common])
    assert not (tmp_path / "out").exists()
