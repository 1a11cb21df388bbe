"""The benchmark measures what it says, and leaves out nobody who fails."""

import itertools
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import __main__ as command
from benchmarks import machine, quality, report, scaling
from benchmarks.contenders import Contender, Worker, filters
from benchmarks.noise_levels import noise_level
from benchmarks.quality import Result, compare
from benchmarks.scores import read_scores, scores_table
from benchmarks.startup import measure_startup
from benchmarks.workers import make_pictures, measure_workers, workers_table
from sr_hub import cli
from sr_hub.evaluation import find_pairs
from sr_hub.generator import SRGenerator
from sr_hub.metrics import psnr_y
from sr_hub.precision import has_fast_bf16
from sr_hub.pretrained import bundled_models
from sr_hub.provenance import hash_weights

ROOT = Path(__file__).parent.parent


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny"
    for name in ("HR", "LRx4"):
        (folder / name).mkdir(parents=True)
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        hr = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
        hr.save(folder / "HR" / f"{seed}.png")
        hr.resize((12, 12), Image.Resampling.BICUBIC).save(folder / "LRx4" / f"{seed}.png")
    return folder


def test_scores_are_those_of_the_contender_and_failures_stay_in_the_list(data: Path, tmp_path: Path) -> None:
    contenders = [
        *filters(),
        Contender("absent", "ncnn_span", {"file": "x"}),
        Contender("broken", "pillow", {"filter": "NONE"}),
    ]
    results = compare(contenders, find_pairs(data, 4), lpips=None, folder=tmp_path, rounds=2)
    assert [result.name for result in results] == [contender.name for contender in contenders]
    expected = []
    for seed in range(2):
        lr = Image.open(data / "LRx4" / f"{seed}.png")
        images = (Image.open(data / "HR" / f"{seed}.png"), lr.resize((48, 48), Image.Resampling.BICUBIC))
        hr, sr = (torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 255 for image in images)
        expected.append(psnr_y(sr, hr, 4).item())
    assert results[0].psnr_y == pytest.approx(np.mean(expected), abs=1e-4)
    assert results[1].psnr_y != results[0].psnr_y
    assert results[0].timings == 4 and results[0].seconds and results[0].peak_memory
    assert results[0].quartiles and results[0].quartiles[0] <= results[0].seconds <= results[0].quartiles[1]
    assert results[2].error == "ModuleNotFoundError: No module named 'ncnn'"
    assert results[3].error == "KeyError: 'NONE'" and results[3].psnr_y is None


def test_slow_contenders_are_timed_once(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "SLOW", 0.0)
    (result,) = compare(filters()[:1], find_pairs(data, 4), lpips=None, folder=tmp_path, rounds=3)
    assert result.timings == 2  # pictures


def test_a_worker_that_dies_says_so(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    worker = Worker(Contender("dead", "pillow", {}, str(script)))
    assert worker.error == "its process ended with code 7"
    assert worker.ask({"lr": "x.png"}) is None
    worker.close()


def test_a_missing_picture_is_told(tmp_path: Path) -> None:
    worker = Worker(filters()[0])
    assert worker.error is None
    assert worker.ask({"lr": str(tmp_path / "none.png")}) is None
    assert worker.error is not None and "none.png" in worker.error
    worker.close()


def test_the_command_writes_json_tables_and_pictures(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    readme = tmp_path / "README.md"
    marked = [f"<!-- {name}:start -->\nold\n<!-- {name}:end -->\n" for name in ("benchmark", *command.SCORES)]
    readme.write_text(f"before\n{''.join(marked)}after\n")
    out = tmp_path / "out"
    arguments = ["--data", str(data), "--model", str(tmp_path / "model"), "--no-peers", "--rounds", "1"]
    arguments += ["--out", str(out), "--readme", str(readme), "--largest-side", "64"]

    def compare_while_the_readme_is_edited(*arguments: Any, **settings: Any) -> list[Result]:
        readme.write_text(readme.read_text().replace("after\n", "edited\n"))
        return compare(*arguments, **settings)

    monkeypatch.setattr(command, "compare", compare_while_the_readme_is_edited)
    assert command.main([*arguments, "--parts", "quality", "scaling"]) == 0
    content = json.loads((out / "benchmark.json").read_text())
    names = [result["name"] for result in content["quality"]]
    precisions = ["bf16", "fp32"] if has_fast_bf16(torch.device("cpu")) else ["fp32", "bf16"]
    ours = [f"ours: model, {precision}" for precision in precisions]
    assert names == [*ours, "bicubic (Pillow)", "Lanczos (Pillow)"]
    assert content["quality"][0]["time_over_ours"] == 1
    assert content["pictures"] == {"Tiny": 2}
    (point,) = content["scaling"]
    assert point["side"] == 64 and point["call_over_network"] > 1
    assert point["seconds_per_megapixel"] == pytest.approx(point["seconds"] / 0.004096)
    assert content["machine"]["torch"] == version("torch")
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("edited\n") and "old" not in text
    assert f"torch {version('torch')}" in text and f"| {ours[0]} | " in text
    assert report.quality_table([]).splitlines()[0] in (out / "benchmark.md").read_text()
    for name in ("quality_time.png", "scaling.png"):
        assert Image.open(out / name).size[0] > 400


def test_degraded_pictures_are_those_of_the_evaluator(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    arguments = ["--data", str(data), "--degradation", "photo"]
    own = ["--model", str(tmp_path / "model"), "--no-peers", "--rounds", "1", "--out", str(tmp_path / "out")]
    assert command.main([*arguments, *own, "--parts", "quality"]) == 0
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert content["degradation"] == "photo, seed 0"
    file = tmp_path / "scores.json"
    assert cli.main(["evaluate", str(tmp_path / "model"), *arguments, "--json", str(file)]) == 0
    bicubic = json.loads(file.read_text())["mean"]["bicubic"]["psnr_y"]
    (measured,) = [result for result in content["quality"] if result["name"] == "bicubic (Pillow)"]
    assert measured["psnr_y"] == pytest.approx(bicubic, abs=0.02)
    assert "LR by photo, seed 0" in (tmp_path / "out" / "benchmark.md").read_text()


def test_wrong_arguments(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quality needs --data"):
        command.main(["--parts", "quality", "--no-peers", "--out", str(tmp_path)])
    with pytest.raises(ValueError, match="must hold HR/ and LRx4/"):
        command.main(["--data", str(data / "HR"), "--no-peers", "--parts", "quality", "--out", str(tmp_path)])
    readme = tmp_path / "README.md"
    readme.write_text("<!-- benchmark:start -->")
    with pytest.raises(ValueError, match=r"expected <!-- benchmark:start --> and, after it,"):
        command.main(["--readme", str(readme), "--out", str(tmp_path)])


def test_table_by_hand() -> None:
    results = [
        Result("ours: a", 30.0, 0.25, 0.1, (0.09, 0.11), 300_000_000, 9),
        Result("peer|x", float("inf"), None, 0.25, (0.2, 0.3), 5_000_000, 3),
        Result("gone", error="ImportError: no such thing"),
    ]
    assert report.quality_table(results).splitlines()[2:] == [
        "| ours: a | 30.00 | 0.250 | 0.1 (0.09 to 0.11) | 1 | 300 |",
        "| peer\\|x | equal | - | 0.25 (0.2 to 0.3) | 2.5 | 5 |",
        "| gone | could not run: ImportError: no such thing | | | | |",
    ]


def test_scores_by_hand(tmp_path: Path) -> None:
    def write(name: str, model: str, fidelity: str, psnr_y: float, lr: str = "as published") -> None:
        settings = {"model": model, "fidelity": fidelity, "data": name, "lr": lr}
        mean = {"sr": {"psnr_y": psnr_y, "lpips": 0.25}, "bicubic": {"psnr_y": 26.0, "lpips": 0.5}}
        path = tmp_path / model / f"{name}-{fidelity}-{lr}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"settings": settings, "mean": mean}))

    write("Set14", "b", "1.0", 27.125)
    write("Set5", "b", "1.0", 31.0)
    write("Set5", "b", "0.75", 31.0)  # between the rows of the table
    write("Set5", "a", "0.0", 30.5)
    write("Set5", "a", "0.0", 20.0, "photo, seed 0")
    ensemble = json.loads((tmp_path / "b" / "Set5-1.0-as published.json").read_text())
    ensemble["settings"]["ensemble"] = "flips and turns"
    ensemble["mean"]["sr"]["psnr_y"] = 32.0
    (tmp_path / "b" / "last.json").write_text(json.dumps(ensemble))
    (tmp_path / "speed.json").write_text("{}")
    scores = read_scores(tmp_path)
    assert scores_table(scores).splitlines() == [
        "| | Set5 | Set14 |",
        "|---|---|---|",
        "| a, fidelity 0 | 30.50 / 0.250 |  |",
        "| b, fidelity 1 | 31.00 / 0.250 | 27.12 / 0.250 |",  # not that of the ensemble
        "| bicubic | 26.00 / 0.500 | 26.00 / 0.500 |",
    ]
    assert scores_table(scores, "photo, seed 0").splitlines()[2] == "| a, fidelity 0 | 20.00 / 0.250 |"


def test_the_readme_shows_the_scores_in_docs_and_the_cards_show_the_same() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert command.insert_scores(readme, ROOT / "docs" / "results") == readme
    for model in bundled_models():
        shown = {path.name: path.read_bytes() for path in (ROOT / "docs" / "results" / model).iterdir()}
        bundled = ROOT / "sr_hub" / "bundled" / model / "results"
        assert shown == {path.name: path.read_bytes() for path in bundled.iterdir()}


def test_the_readme_shows_what_an_ensemble_of_the_bundled_weights_scores() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs" / "results" / "ensemble").iterdir()):
        content = json.loads(path.read_text(encoding="utf-8"))
        settings, sr = content["settings"], content["mean"]["sr"]
        if float(settings["fidelity"]) == 1:  # the hash of a blend may depend on the machine
            assert settings["weights"] == hash_weights(
                SRGenerator.from_pretrained(settings["model"], fidelity=1)
            )
        if settings["lr"] == "as published":
            assert f"{sr['psnr_y']:.2f} / {sr['lpips']:.3f}" in readme, path


def test_efficiency_by_hand() -> None:
    rows = [
        {"workers": 1, "threads": 1, "folder_seconds": 12.0, "steps_per_second": 1.0},
        {"workers": 2, "threads": 1, "folder_seconds": 8.0, "steps_per_second": 1.8},
    ]
    assert workers_table(rows).splitlines()[2:] == [
        "| 1 x 1 | 12.0 | 100% | 1.00 | 100% |",
        "| 2 x 1 | 8.0 | 75% | 1.80 | 90% |",
    ]


def test_pictures_have_structure_and_are_the_same_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_pictures(tmp_path / name, 2)
    first, second = (np.asarray(Image.open(tmp_path / "a" / f"00{index}.png")) for index in range(2))
    assert np.array_equal(first, np.asarray(Image.open(tmp_path / "b" / "000.png")))
    assert (first != second).mean() > 0.9
    assert first.std() > 20


@pytest.mark.slow
def test_workers_do_the_same_work(tmp_path: Path) -> None:
    (row,) = measure_workers(tmp_path, pictures=6, counts=(1,))
    assert row["folder_seconds"] > 0 and row["steps_per_second"] > 0
    assert len(list((tmp_path / "large1x1").glob("*.png"))) == 6


def test_rates_count_the_work() -> None:
    _, work = machine.make_convolution(8, 10, torch.float32)
    assert work == 2 * 9 * 8 * 8 * 100
    _, work = machine.make_product(16, torch.float32)
    assert work == 2 * 16**3


def test_the_network_rate_counts_every_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_PRODUCT", 64)
    torch.manual_seed(0)
    generator = SRGenerator(features=4, blocks=1)
    plain = SRGenerator.residual
    (point,) = scaling.measure_scaling(generator, [16], passes=3, seconds_a_pass=60)
    assert SRGenerator.residual is plain
    # head 27*4, gate 9*4 + 9 + 9*4, two of the block 2*(9*4*4), tail 9*4*48
    work = 2 * 16**2 * (108 + 81 + 2 * 144 + 1728)
    assert point.network_rate * point.network_seconds == pytest.approx(work)
    assert point.runs == 15  # five a pass at most
    assert point.seconds > point.network_seconds > 0
    assert point.peak_memory > 50e6


def test_a_long_call_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "_PRODUCT", 64)
    calls = []
    plain = scaling.upscale

    def counted(generator: SRGenerator, pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return plain(generator, pixels)

    monkeypatch.setattr(scaling, "upscale", counted)
    (point,) = scaling.measure_scaling(SRGenerator(features=4, blocks=1), [32], longest=0)
    assert calls == [64, 32]  # the first of all warms up
    assert point.runs == 1 and point.seconds > point.network_seconds > 0 and point.peak_memory > 50e6
    assert point.share_of_convolution == pytest.approx(point.network_rate / point.convolution_rate)
    assert point.share_of_matrix_product == pytest.approx(point.network_rate / point.matrix_rate)
    assert point.share_of_bf16_matrix_product == pytest.approx(point.network_rate / point.bf16_matrix_rate)


@pytest.mark.slow
def test_startup_adds_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    startup = measure_startup(tmp_path, str(tmp_path / "model"), runs=1)
    assert Image.open(tmp_path / "out.png").size == (1024, 1024)
    whole, stages = startup["processes"]["sr-hub upscale"], sum(startup["stages"].values())
    assert startup["processes"]["python"] < startup["processes"]["import torch"] < whole
    assert 0.4 * whole < stages < 2.5 * whole


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_that_since_the_reset() -> None:
    scaling._reset_peak()
    before = scaling._peak()
    block = np.ones(2**26, np.uint8)
    assert scaling._peak() - before > 2**25
    del block
    scaling._reset_peak()
    assert scaling._peak() - before < 2**25


@pytest.mark.parametrize("deviation", [2.0, 8.0])
def test_the_level_of_noise_is_found(deviation: float) -> None:
    random = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.2, 0.8, 240).expand(1, 3, 240, 240)
    noise = torch.randn(1, 1, 240, 240, generator=random) * deviation / 255
    assert noise_level(ramp + noise) == pytest.approx(deviation, rel=0.1)
    assert noise_level(ramp) < 0.01


def test_labels_of_points_that_lie_together_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure))
    names = [f"ours: {model}, fidelity {end}, fp32" for model in ("clean", "photo") for end in (1, 0)]
    results = [Result(name, 30.0, 0.1, seconds=0.5) for name in [*names, "SPAN", "Other", "Third"]]
    filters = [Result("bicubic", 20.0, 0.5, seconds=0.01), Result("Lanczos", 20.0, 0.5, seconds=0.014)]
    report.plot_front([*results, *filters], tmp_path / "plot.png")
    for axis in figures[0].axes:
        boxes = [label.get_window_extent() for label in axis.texts]
        assert len(boxes) == 9
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
        points = [
            axis.transData.transform(line.get_xydata()[0])
            for line in axis.lines
            if len(line.get_xydata()) == 1
        ]
        assert len(points) == 9 and not any(box.contains(x, y) for box in boxes for x, y in points)


def test_a_label_stays_beside_its_point_when_others_lie_where_it_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(report, "_save", lambda figure, path: figures.append(figure))
    points = {("clean", 1): 28.92, ("photo", 1): 28.8, ("clean", 0): 30.5, ("photo", 0): 30.2}
    ours = [
        Result(f"ours: {model}, fidelity {end}, fp32", psnr, 0.1, seconds=0.34)
        for (model, end), psnr in points.items()
    ]
    others = [Result("bicubic", 26.7, 0.4, seconds=0.01), Result("Real-ESRGAN", 25.7, 0.2, seconds=18)]
    report.plot_front([Result("SPAN", 28.97, 0.1, seconds=0.27), *ours, *others], tmp_path / "plot.png")
    axis = figures[0].axes[0]
    label = next(text for text in axis.texts if text.get_text() == "SPAN")
    x, y = axis.transData.transform((0.27, 28.97))
    box = label.get_window_extent()
    assert max(box.x0 - x, x - box.x1, 0) + max(box.y0 - y, y - box.y1, 0) < 20  # pixels
