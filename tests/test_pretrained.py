import copy
import json
import subprocess
import sys
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


def test_saved_files_are_as_readable_as_any_new_file(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    (tmp_path / "any").touch()
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_both_ends_and_what_lies_between(family: Path) -> None:
    lr = torch.rand(1, 3, 8, 8)
    assert torch.equal(SRGenerator.from_pretrained(family, fidelity=0)(lr), tiny(0)(lr))
    assert torch.equal(SRGenerator.from_pretrained(family, fidelity=1.0)(lr), tiny(1)(lr))
    quarter = SRGenerator.from_pretrained(family, fidelity=0.25)
    expected = 0.75 * tiny(0).tail.weight + 0.25 * tiny(1).tail.weight
    assert torch.allclose(quarter.tail.weight, expected, atol=1e-7)


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    weights = {name: value.half() for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors")
    assert SRGenerator.from_pretrained(tmp_path).tail.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_of_the_file_is_kept_on_request(family: Path, dtype: torch.dtype) -> None:
    for name in ("model", "fidelity"):
        path = family / f"{name}.safetensors"
        save_file({key: value.to(dtype) for key, value in load_file(path).items()}, path)
    kept = SRGenerator.from_pretrained(family, dtype="auto", fidelity=0)
    assert {value.dtype for value in kept.parameters()} == {dtype}
    assert torch.equal(kept.tail.weight, tiny(0).tail.weight.to(dtype))
    assert SRGenerator.from_pretrained(family, dtype=torch.float64).tail.weight.dtype == torch.float64


def test_mixed_dtypes_cannot_be_kept(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "tail.bias": weights["tail.bias"].half()}, path)
    with pytest.raises(ValueError, match="must be of one dtype to keep it, got torch.float16, torch.float32"):
        SRGenerator.from_pretrained(tmp_path, dtype="auto")
    assert SRGenerator.from_pretrained(tmp_path).tail.bias.dtype == torch.float32


def test_one_file_is_enough(family: Path, tmp_path: Path) -> None:
    lr = torch.rand(1, 3, 8, 8)
    for name, seed in (("model", 0), ("fidelity", 1)):
        file = (family / f"{name}.safetensors").rename(tmp_path / f"any-{name}.safetensors")
        assert torch.equal(SRGenerator.from_pretrained(file)(lr), tiny(seed)(lr))
        with pytest.raises(ValueError, match="one end only"):
            SRGenerator.from_pretrained(file, fidelity=0.5)


def test_a_lone_file_without_its_config(tmp_path: Path) -> None:
    save_file(tiny().state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="must carry its config in its header"):
        SRGenerator.from_pretrained(tmp_path / "a.safetensors")
    save_file(tiny().state_dict(), tmp_path / "a.safetensors", metadata={"config": '{"scale": 9}'})
    with pytest.raises(ValueError, match="the header of .*a.safetensors must have exactly the fields"):
        SRGenerator.from_pretrained(tmp_path / "a.safetensors")


def test_a_revision_of_a_model_that_is_no_repository(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "model")
    for name in ("photo", str(tmp_path / "model")):
        with pytest.raises(
            ValueError, match="revision v1 needs a repository on the Hub, got .* on this machine"
        ):
            SRGenerator.from_pretrained(name, revision="v1")


def test_files_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(
        FileNotFoundError, match=r"must be a folder or a .safetensors file, got .*weights.pth"
    ):
        SRGenerator.from_pretrained(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((48,), float("nan")), "tail.bias must be finite, got NaN or infinity"),
        (torch.zeros(48, dtype=torch.int32), "tail.bias must be of floating point, got torch.int32"),
        (torch.full((48,), -float("inf")), "tail.bias must be finite, got NaN or infinity"),
        (
            torch.full((48,), -1e300, dtype=torch.float64),
            "tail.bias must be finite in torch.float32, got -1e\\+300",
        ),
        (
            torch.zeros(48).to(torch.float8_e4m3fn),
            "tail.bias must be of floating point of 16 bits or more, got torch.float8_e4m3fn",
        ),
    ],
)
def test_weights_that_are_no_numbers(tmp_path: Path, value: torch.Tensor, message: str) -> None:
    tiny().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), "tail.bias": value}, path)
    with pytest.raises(ValueError, match=message):
        SRGenerator.from_pretrained(tmp_path)


def test_another_faithful_end_is_another_model(tmp_path: Path) -> None:
    tiny(0).save_pretrained(tmp_path, fidelity=tiny(1))
    (tmp_path / "training_record.json").write_text('{"legs": []}')
    tiny(0).save_pretrained(tmp_path, fidelity=tiny(2))
    assert not (tmp_path / "training_record.json").exists()
    with pytest.raises(ValueError, match="fidelity must be of the config .*'features': 8.*'features': 4"):
        tiny(0).save_pretrained(tmp_path, fidelity=SRGenerator(features=4, blocks=1))


def test_saving_over_another_model_leaves_nothing_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    tiny(0).save_pretrained(folder, fidelity=tiny(1))
    (folder / "training_record.json").write_text('{"legs": []}')
    tiny(0).save_pretrained(folder, fidelity=tiny(1))  # the same again: the record stays true
    assert (folder / "training_record.json").exists()
    tiny(2).save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert torch.equal(SRGenerator.from_pretrained(folder).tail.weight, tiny(2).tail.weight)
    (folder / "results").mkdir()
    (folder / "results" / "s.json").write_text("{}")
    with pytest.raises(FileExistsError, match="must not hold results/ of other weights: save elsewhere"):
        tiny(2).save_pretrained(folder, fidelity=tiny(1))
    with pytest.raises(FileExistsError, match="must not hold results/ of other weights: save elsewhere"):
        tiny(3).save_pretrained(folder)
    assert torch.equal(SRGenerator.from_pretrained(folder).tail.weight, tiny(2).tail.weight)


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
    weights["tail.wait"] = weights.pop("tail.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 weights missing \(tail.weight\), 1 unknown \(tail.wait\)"):
        SRGenerator.from_pretrained(tmp_path)


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "features": 16}))
    with pytest.raises(ValueError, match=r"must have shape \(16,\), got \(8,\)"):
        SRGenerator.from_pretrained(tmp_path)


def test_weights_too_large_for_the_dtype_asked_for(tmp_path: Path) -> None:
    generator = tiny()
    with torch.no_grad():
        generator.tail.bias[3] = 7e4  # above 65504, the largest of float16
    generator.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="tail.bias must be finite in torch.float16, got 70000"):
        SRGenerator.from_pretrained(tmp_path, dtype=torch.float16)
    assert SRGenerator.from_pretrained(tmp_path, dtype=torch.bfloat16).tail.bias.isfinite().all()


def _limited(program: str, *arguments: str, more: int) -> subprocess.CompletedProcess[str]:
    """Runs ``program`` in a process that gets at most ``more`` bytes once the package is loaded."""
    pages = "int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()"
    limit = f"resource.setrlimit(resource.RLIMIT_AS, ({pages} + {more},) * 2)"
    start = f"import resource, sys; from sr_hub import SRGenerator; SRGenerator(features=8); {limit}; "
    return subprocess.run([sys.executable, "-c", start + program, *arguments], capture_output=True, text=True)


def test_a_hostile_config_takes_no_memory(tmp_path: Path) -> None:
    """A kilobyte of weights beside a config of 25 GB: the header is compared before anything is built."""
    save_file({"head.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"scale": 4, "features": 1024, "blocks": 256}')
    run = _limited("SRGenerator.from_pretrained(sys.argv[1])", str(tmp_path), more=2**30)
    assert run.returncode == 1
    assert "ValueError" in run.stderr and "weights missing" in run.stderr, run.stderr


def test_a_hostile_config_with_every_name_takes_no_memory(tmp_path: Path) -> None:
    names = SRGenerator(features=1, blocks=256).state_dict()
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"scale": 4, "features": 1024, "blocks": 256}')
    run = _limited("SRGenerator.from_pretrained(sys.argv[1])", str(tmp_path), more=2**30)
    assert run.returncode == 1
    assert "ValueError" in run.stderr and "must have shape" in run.stderr, run.stderr


@pytest.mark.parametrize("config", [(2, 1, 1), (3, 5, 2), (4, 16, 11)])
def test_what_is_expected_of_the_file_is_what_is_built(config: tuple[int, int, int]) -> None:
    settings = dict(zip(("scale", "features", "blocks"), config, strict=True))
    expected = SRGenerator._expected_weights(settings)
    built = SRGenerator(**settings).state_dict()
    assert {name: value.shape for name, value in expected.items()} == {
        name: value.shape for name, value in built.items()
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "must be JSON"),
        ("[1]", "must hold a JSON object, got list"),
        ("[" * 200_000, "config.json must be JSON, got: maximum recursion depth exceeded"),
        ('{"scale": ' + "4" * 5000 + "}", "config.json must be JSON, got: Exceeds the limit"),
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


def test_a_model_is_read_to_the_cpu_whatever_is_the_default(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path)
    with torch.device("meta"):
        weights = SRGenerator.from_pretrained(tmp_path).state_dict()
    expected = SRGenerator.from_pretrained(tmp_path).state_dict()
    assert all(value.equal(expected[name]) for name, value in weights.items())


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


@pytest.mark.parametrize("name", bundled_models() or ["clean"])
@pytest.mark.parametrize("fidelity", [0.0, 1.0])
def test_every_block_of_a_bundled_model_does_some_of_the_work(name: str, fidelity: float) -> None:
    """Released weights once were silent from the third block on, which no score told."""
    generator = SRGenerator.from_pretrained(name, fidelity=fidelity)
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    lr = torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        sr = generator(lr)
        for block in generator.blocks:
            weights = copy.deepcopy(block.state_dict())
            for weight in block.parameters():
                weight.zero_()
            assert (generator(lr) - sr).abs().mean() > 0.1 / 255  # a tenth of a level; about 0.5 is usual
            block.load_state_dict(weights)
