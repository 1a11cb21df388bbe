"""The ONNX file gives torch's results at any size."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sr_hub import SRGenerator, cli, onnx_export
from sr_hub.onnx_export import export_onnx

pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def generator() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(features=8, blocks=2).eval()


@pytest.fixture(scope="module")
def file(generator: SRGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    assert export_onnx(generator, path) <= 1e-4
    return path


@pytest.mark.parametrize("size", [(1, 3, 5, 8), (1, 3, 64, 33), (3, 3, 17, 90)])
def test_equal_to_torch_at_sizes_that_the_export_did_not_see(
    file: Path, generator: SRGenerator, size: tuple[int, ...]
) -> None:
    lr = torch.rand(size)
    (sr,) = onnxruntime.InferenceSession(file).run(None, {"lr": lr.numpy()})
    with torch.inference_mode():
        expected = generator(lr).numpy()
    assert sr.dtype == np.float32
    np.testing.assert_allclose(sr, expected, rtol=0, atol=1e-4)
    assert np.abs(expected).max() > 0.5


def test_the_file_is_whole_and_alone(file: Path, generator: SRGenerator) -> None:
    assert [path.name for path in file.parent.iterdir()] == ["tiny.onnx"]
    model = onnx.load(file)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["sr_hub.config"]) == generator.config
    sides = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides[0] and sides[2] and sides[3] and sides[2] != sides[3]


def test_the_other_scales(tmp_path: Path) -> None:
    for scale in (2, 3):
        assert export_onnx(SRGenerator(scale=scale, features=4, blocks=1), tmp_path / "x.onnx") <= 1e-4


def test_a_file_that_differs_from_torch_is_not_written(
    generator: SRGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="must agree with torch to -1.0, got"):
        export_onnx(generator, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command(
    generator: SRGenerator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator.save_pretrained(tmp_path / "model")
    target = tmp_path / "tiny.onnx"
    assert cli.main(["export", str(tmp_path / "model"), str(target)]) == 0
    assert "agrees with torch to" in capsys.readouterr().out and target.stat().st_size > 10_000
    (tmp_path / "d.onnx").mkdir()
    for out, message in (
        ("x.pt", "must end in .onnx"),
        ("no/x.onnx", "no folder"),
        ("d.onnx", "got the folder"),
    ):
        assert cli.main(["export", str(tmp_path / "model"), str(tmp_path / out)]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    assert cli.main(["export", str(tmp_path / "model"), str(target)]) == 2
    assert "not installed: pip install 'sr_hub[onnx]'" in capsys.readouterr().err
