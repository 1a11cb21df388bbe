"""The evaluator on small made-up sets whose scores are known."""

import json
import math
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sr_hub.degradations import bicubic, photo
from sr_hub.evaluation import (
    Evaluation,
    ImageScores,
    Pair,
    Scores,
    evaluate,
    find_pairs,
    hold_out,
    least_side,
    load_samples,
)
from sr_hub.metrics import LPIPS, psnr_y, round_to_8_bits, ssim_y
from sr_hub.resample import downscale_bicubic, upscale_bicubic


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colour blobs, so that bicubic does well but not perfectly."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def hr_only(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    (folder / "deeper").mkdir(parents=True)
    picture(50, 62, 1).save(folder / "b.png")
    picture(48, 64, 2).save(folder / "deeper" / "a.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def hr_and_lr(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    for name in ("HR", "LRx4"):
        (folder / name).mkdir(parents=True)
    for index in range(2):
        hr = picture(48, 64, index)
        hr.save(folder / "HR" / f"{index}.png")
        hr.resize((16, 12), Image.Resampling.BOX).save(folder / "LRx4" / f"{index}x4.png")
    return folder


def bicubic_x4(lr: Tensor) -> Tensor:
    return upscale_bicubic(lr, 4)


def test_pairs_of_a_plain_tree_are_sorted_and_have_no_lr(hr_only: Path) -> None:
    assert find_pairs(hr_only, 4) == [
        Pair("b.png", hr_only / "b.png"),
        Pair("deeper/a.png", hr_only / "deeper" / "a.png"),
    ]


def test_pairs_of_hr_and_lr_folders_belong_together_by_order(hr_and_lr: Path) -> None:
    hr, lr = hr_and_lr / "HR", hr_and_lr / "LRx4"
    assert find_pairs(hr_and_lr, 4) == [
        Pair("0.png", hr / "0.png", lr / "0x4.png"),
        Pair("1.png", hr / "1.png", lr / "1x4.png"),
    ]
    without = [Pair("0.png", hr / "0.png"), Pair("1.png", hr / "1.png")]
    assert find_pairs(hr_and_lr, 4, use_lr=False) == without
    assert find_pairs(hr_and_lr, 2) == without  # there is no LRx2


def named(folder: Path, hr: list[str], lr: list[str]) -> Path:
    for names, place in ((hr, folder / "HR"), (lr, folder / "LRx4")):
        place.mkdir()
        for name in names:
            (place / f"{name}.png").touch()
    return folder


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        (["1", "2", "10"], ["1x4", "2x4", "10x4"]),
        (["img", "img1"], ["img_x4", "img1-X4"]),
        (["a", "ax4"], ["a", "ax4"]),
        (["a", "ax4"], ["ax4", "ax4x4"]),
        (["p_HR", "q_HR"], ["p_LR", "q_LR"]),
        (["1", "2", "10"], ["1_bicubic", "2_bicubic", "10_bicubic"]),
        (["1_HR", "2_HR", "10_HR"], ["lr_1", "lr_2", "lr_10"]),
    ],
)
def test_pairs_belong_together_by_their_names(tmp_path: Path, hr: list[str], lr: list[str]) -> None:
    found = {pair.hr.stem: pair.lr.stem for pair in find_pairs(named(tmp_path, hr, lr), 4) if pair.lr}
    assert found == dict(zip(hr, lr, strict=True))


def test_pairs_whose_names_and_places_differ_are_refused(tmp_path: Path) -> None:
    named(tmp_path, ["1", "2", "3"], ["1x4", "2x4", "two"])
    assert len(find_pairs(tmp_path, 4)) == 3  # by order, which the names do not gainsay
    (tmp_path / "LRx4" / "two.png").rename(tmp_path / "LRx4" / "0.png")
    with pytest.raises(ValueError, match="LR image 1x4 must be that of 2 by its place, but is 1's by its"):
        find_pairs(tmp_path, 4)


def test_pairs_reject_missing_and_uneven_folders(hr_and_lr: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder of evaluation images at .*nowhere"):
        find_pairs(tmp_path / "nowhere", 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in .*empty"):
        find_pairs(tmp_path / "empty", 4)
    (hr_and_lr / "LRx4" / "1x4.png").unlink()
    with pytest.raises(ValueError, match="2 images in .*HR, but 1 in .*LRx4"):
        find_pairs(hr_and_lr, 4)


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{index:02d}.png" for index in range(count)]
    for path in paths:
        picture(24, 24).save(path)
    return paths


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, []), (3, [0, 1, 2]), (19, [0, 1, 2, 3]), (20, [0, 5, 10, 15]), (23, [0, 5, 10, 15])],
)
def test_the_held_out_images_are_the_same_always(tmp_path: Path, count: int, expected: list[int]) -> None:
    paths = pictures(tmp_path, count)
    assert hold_out(paths, 4) == [paths[index] for index in expected]


def test_broken_and_small_images_are_not_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path, 20)
    paths[0].write_bytes(b"broken")
    picture(19, 40).save(paths[1])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    picture(50, 50).save(paths[10])  # a decompression bomb, so to speak
    paths[15].unlink()
    assert hold_out(paths, 4) == [paths[index] for index in (2, 5, 11, 16)]
    assert hold_out(paths[:3], 4) == [paths[2]]
    assert hold_out(paths[:2], 4) == []
    with pytest.raises(ValueError, match="10.png cannot be read as an image: Image size"):
        next(load_samples([Pair("10.png", paths[10])], 4, degradation=bicubic))


@pytest.mark.parametrize("degradation", [bicubic, photo])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_least_side_can_be_scored_and_one_pixel_less_cannot(
    tmp_path: Path, scale: int, degradation
) -> None:
    for side, enough in ((least_side(scale), True), (least_side(scale) - 1, False)):
        picture(side, side).save(tmp_path / "x.png")
        assert bool(hold_out([tmp_path / "x.png"], scale)) == enough
        samples = load_samples([Pair("x", tmp_path / "x.png")], scale, degradation=degradation)
        with nullcontext() if enough else pytest.raises(ValueError, match="must leave at least 11x11"):
            evaluate(lambda lr: upscale_bicubic(lr, scale), samples, scale)


def test_pairs_leave_out_what_they_are_told_to(hr_only: Path) -> None:
    assert [pair.name for pair in find_pairs(hr_only, 4, leave_out=[hr_only / "deeper"])] == ["b.png"]


def test_samples_are_degraded_and_cut_to_multiples_of_the_scale(hr_only: Path) -> None:
    first, second = load_samples(find_pairs(hr_only, 4), 4, degradation=bicubic)
    pixels = torch.tensor(np.asarray(Image.open(hr_only / "b.png"))).permute(2, 0, 1)[None] / 255
    assert torch.equal(first.hr, pixels[..., :48, :60])
    assert torch.equal(first.lr, downscale_bicubic(first.hr, 4, round_to_8_bits=True))
    assert second.lr.shape == (1, 3, 12, 16)


def test_samples_read_the_lr_file(hr_and_lr: Path) -> None:
    sample = next(load_samples(find_pairs(hr_and_lr, 4), 4, degradation=bicubic))
    pixels = torch.tensor(np.asarray(Image.open(hr_and_lr / "LRx4" / "0x4.png"))).permute(2, 0, 1)[None] / 255
    assert torch.equal(sample.lr, pixels)


def test_degradation_depends_on_seed_and_place_only(hr_only: Path) -> None:
    pairs = find_pairs(hr_only, 4)

    def lrs(seed: int) -> list[Tensor]:
        return [s.lr for s in load_samples(pairs, 4, degradation=photo, seed=seed)]

    same, again, other = lrs(1), lrs(1), lrs(2)
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(same, other, strict=True))


def test_largest_side_cuts_the_same_centre_of_lr_and_hr(hr_and_lr: Path) -> None:
    pairs = find_pairs(hr_and_lr, 4)
    whole = next(load_samples(pairs, 4, degradation=bicubic))
    cut = next(load_samples(pairs, 4, degradation=bicubic, largest_side=34))
    assert cut.hr.shape == (1, 3, 32, 32)
    assert torch.equal(cut.hr, whole.hr[..., 8:40, 16:48])
    assert torch.equal(cut.lr, whole.lr[..., 2:10, 4:12])


def test_samples_reject_bad_files(hr_and_lr: Path, tmp_path: Path) -> None:
    pairs = find_pairs(hr_and_lr, 4)
    picture(12, 15).save(hr_and_lr / "LRx4" / "0x4.png")
    with pytest.raises(ValueError, match=r"0x4.png must be 4 times smaller than .*0.png, got \(12, 15\)"):
        next(load_samples(pairs, 4, degradation=bicubic))
    (hr_and_lr / "HR" / "0.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="0.png cannot be read as an image"):
        next(load_samples(pairs, 4, degradation=bicubic))
    picture(3, 40).save(tmp_path / "thin.png")
    with pytest.raises(ValueError, match="thin.png is smaller than 4x4 pixels"):
        next(load_samples([Pair("thin", tmp_path / "thin.png")], 4, degradation=bicubic))


def test_scores_are_those_of_the_metrics(hr_and_lr: Path) -> None:
    samples = list(load_samples(find_pairs(hr_and_lr, 4), 4, degradation=bicubic))
    lpips = LPIPS().eval()
    sharpened = {s.lr: round_to_8_bits(bicubic_x4(s.lr) * 1.2 - 0.1) for s in samples}
    result = evaluate(lambda lr: sharpened[lr], samples, 4, lpips=lpips)
    assert [(i.name, i.height, i.width) for i in result.images] == [("0.png", 48, 64), ("1.png", 48, 64)]
    for sample, image in zip(samples, result.images, strict=True):
        for scores, picture in ((image.sr, sharpened[sample.lr]), (image.bicubic, bicubic_x4(sample.lr))):
            assert scores.psnr_y == psnr_y(picture, sample.hr, 4).item()
            assert scores.ssim_y == ssim_y(picture, sample.hr, 4).item()
            assert scores.lpips == lpips(picture, sample.hr).item()
            shrunk = downscale_bicubic(round_to_8_bits(picture), 4)
            assert scores.lr_consistency == psnr_y(shrunk, sample.lr, 0).item()
    assert result.sr.psnr_y == pytest.approx(sum(i.sr.psnr_y for i in result.images) / 2, abs=1e-12)
    assert result.bicubic.psnr_y != result.sr.psnr_y


def test_bicubic_as_generator_equals_the_bicubic_row(hr_only: Path) -> None:
    result = evaluate(bicubic_x4, load_samples(find_pairs(hr_only, 4), 4, degradation=bicubic), 4)
    assert result.sr == result.bicubic
    assert result.sr.lpips is None


class Recorder(nn.Module):
    """Notes its modes and whether gradients are on, with one part frozen in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Dropout().eval()
        self.other = nn.Dropout()
        self.seen: list[tuple[bool, bool, bool]] = []

    def forward(self, lr: Tensor) -> Tensor:
        self.seen.append((self.training, self.other.training, torch.is_grad_enabled()))
        if len(self.seen) > 1:
            raise RuntimeError("stop")
        return bicubic_x4(lr)


def test_modes_are_restored_also_after_an_error(hr_only: Path) -> None:
    generator = Recorder()
    with pytest.raises(RuntimeError, match="stop"):
        evaluate(generator, load_samples(find_pairs(hr_only, 4), 4, degradation=bicubic), 4)
    assert generator.seen == [(False, False, False)] * 2
    assert (generator.training, generator.other.training, generator.frozen.training) == (True, True, False)


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (lambda lr: lr, r"b.png: the generator must return \(1, 3, 48, 60\), got \(1, 3, 12, 15\)"),
        (lambda lr: bicubic_x4(lr) * math.nan, "b.png: the generator returned values that are not finite"),
    ],
)
def test_evaluate_rejects_bad_results(hr_only: Path, generator, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(generator, load_samples(find_pairs(hr_only, 4), 4, degradation=bicubic), 4)


def test_evaluate_rejects_nothing_and_too_small_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images to evaluate on"):
        evaluate(bicubic_x4, [], 4)
    picture(16, 40).save(tmp_path / "small.png")
    samples = load_samples(find_pairs(tmp_path, 4), 4, degradation=bicubic)
    with pytest.raises(ValueError, match="small.png: a border of 4 pixels must leave at least 11x11"):
        evaluate(bicubic_x4, samples, 4)


def test_json_and_markdown_hold_every_number() -> None:
    ours, theirs = Scores(math.inf, 0.95, 0.125, 50.0), Scores(28.5, 0.75, 0.5, 40.25)
    result = Evaluation(4, (ImageScores("a|b\n.png", 10, 20, ours, theirs),), {"model": "m", "seed": 3})
    content = json.loads(result.to_json())
    assert content["settings"] == {"model": "m", "seed": 3}
    assert content["mean"]["sr"] == {"psnr_y": None, "ssim_y": 0.95, "lpips": 0.125, "lr_consistency": 50.0}
    assert content["images"][0]["bicubic"]["psnr_y"] == 28.5
    assert content["images"][0]["name"] == "a|b\n.png"
    row = "inf (28.50) | 0.9500 (0.7500) | 0.1250 (0.5000) | 50.00 (40.25) |"
    assert f"| **mean of 1** | {row}" in result.to_markdown()
    assert f"| a\\|b .png | {row}" in result.to_markdown()
    assert "- model: m\n- seed: 3\n\n| image" in result.to_markdown()


def test_markdown_without_lpips_shows_a_dash() -> None:
    scores = Scores(30.0, 0.9, None, 45.0)
    text = Evaluation(2, (ImageScores("a", 4, 4, scores, scores),)).to_markdown()
    assert "| a | 30.00 (30.00) | 0.9000 (0.9000) | - | 45.00 (45.00) |" in text
    assert text.startswith("| image |")


DATA = "SR_HUB_EVALUATION_DATA"


@pytest.mark.skipif(DATA not in os.environ, reason=f"{DATA} names no folder with Set5/ and Set14/ inside")
@pytest.mark.parametrize(
    # The bicubic row of the x4 tables of EDSR (arXiv:1707.02921), RCAN (arXiv:1807.02758) and later papers.
    ("name", "images", "published_psnr", "published_ssim"),
    [("Set5", 5, 28.42, 0.8104), ("Set14", 14, 26.00, 0.7027)],
)
def test_bicubic_scores_are_the_published_ones(
    name: str, images: int, published_psnr: float, published_ssim: float
) -> None:
    pairs = find_pairs(Path(os.environ[DATA]) / name, 4)
    assert len(pairs) == images and all(pair.lr is not None for pair in pairs)
    result = evaluate(lambda lr: upscale_bicubic(lr, 4), load_samples(pairs, 4, degradation=bicubic), 4)
    # A grey file, of which Set14 has one, was scored on its own samples of 0-255 and not on a luma of 16-235.
    grey = sum(Image.open(pair.hr).mode == "L" for pair in pairs)
    psnr = result.bicubic.psnr_y - grey * 20 * math.log10(255 / 219) / images
    assert psnr == pytest.approx(published_psnr, abs=0.03)
    assert result.bicubic.ssim_y == pytest.approx(published_ssim, abs=0.003)
