import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sr_hub import SRGenerator
from sr_hub.generator import save_weights
from sr_hub.pretrained import bundled_models


def tiny(seed: int = 0) -> SRGenerator:
    torch.manual_seed(seed)
    return SRGenerator(features=8, blocks=1).eval()


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A model with both ends."""
    tiny(0).save_pretrained(tmp_path / "family")
    save_weights(tiny(1), tmp_path / "family" / "fidelity.safetensors")
    return tmp_path / "family"


def test_saved_equals_loaded(tmp_path: Path) -> None:
    generator, lr = tiny(), torch.rand(1, 3, 8, 8)
    generator.save_pretrained(tmp_path)
    loaded = SRGenerator.from_pretrained(tmp_path)
    assert torch.equal(loaded(lr), generator(lr))
    assert not loaded.training
    assert json.loads((tmp_path / "config.json").read_text()) == {"scale": 4, "features": 8, "blocks": 1}


def test_both_ends_and_what_lies_between(family: Path) -> None:
    lr = torch.rand(1, 3, 8, 8)
    assert torch.equal(SRGenerator.from_pretrained(family, fidelity=0)(lr), tiny(0)(lr))
    assert torch.equal(SRGenerator.from_pretrained(family, fidelity=1.0)(lr), tiny(1)(lr))
    quarter = SRGenerator.from_pretrained(family, fidelity=0.25)
    expected = 0.75 * tiny(0).body.weight + 0.25 * tiny(1).body.weight
    assert torch.allclose(quarter.body.weight, expected, atol=1e-7)


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    weights = {name: value.half() for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors")
    assert SRGenerator.from_pretrained(tmp_path).body.weight.dtype == torch.float32


@pytest.mark.parametrize("fidelity", [-0.1, 1.1, float("nan")])
def test_fidelity_out_of_range(family: Path, fidelity: float) -> None:
    with pytest.raises(ValueError, match=r"fidelity must lie in \[0, 1\], got"):
        SRGenerator.from_pretrained(family, fidelity=fidelity)


def test_fidelity_of_a_model_with_one_end(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="one end only"):
        SRGenerator.from_pretrained(tmp_path, fidelity=0.5)


def test_missing_and_unknown_weights_are_named(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["body.wait"] = weights.pop("body.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 weights missing \(body.weight\), 1 unknown \(body.wait\)"):
        SRGenerator.from_pretrained(tmp_path)


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "features": 16}))
    with pytest.raises(ValueError, match=r"must have shape \(16,\), got \(8,\)"):
        SRGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "must be JSON"),
        ("[1]", "must hold a JSON object, got list"),
        ('{"scale": 4, "features": 8}', "missing: blocks, unknown: none"),
        ('{"scale": 4, "features": 8, "blocks": 1, "act": 1}', "missing: none, unknown: act"),
        ('{"scale": 4.0, "features": 8, "blocks": 1}', "scale must be a whole number from 2 to 4, got 4.0"),
        ('{"scale": 4, "features": 10000000, "blocks": 1}', "features must be a whole number from 1 to 1024"),
        ('{"scale": 4, "features": 8, "blocks": true}', "blocks must be a whole number .* got True"),
    ],
)
def test_wrong_config(tmp_path: Path, config: str, message: str) -> None:
    tiny().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        SRGenerator.from_pretrained(tmp_path)


def test_broken_weights(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="whole safetensors file"):
        SRGenerator.from_pretrained(tmp_path)


def test_pickle_is_refused(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="pickle weights only .pytorch_model.bin."):
        SRGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["no_such_model", "./absent", "a/b/c"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="existing folder or a Hub repository user/name"):
        SRGenerator.from_pretrained(name)


def test_config_is_required(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="must hold config.json"):
        SRGenerator.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", bundled_models() or ["clean"])
def test_bundled_models_load_at_both_ends(name: str) -> None:
    lr = torch.full((1, 3, 16, 16), 0.5)
    for fidelity in (0.0, 1.0):
        sr = SRGenerator.from_pretrained(name, fidelity=fidelity)(lr)
        assert sr.shape == (1, 3, 64, 64)
        assert (sr - 0.5).abs().max() < 0.05  # a flat grey stays one
