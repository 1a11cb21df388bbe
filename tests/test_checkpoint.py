import sys
from pathlib import Path

import pytest
import torch

from sr_hub import checkpoint
from sr_hub.checkpoint import flatten_optimizer, load_checkpoint, restore_optimizer, save_checkpoint

if sys.platform != "win32":
    import resource


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None


def test_round_trip_and_only_the_newest_stays(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"a": torch.zeros(2)}, {"name": "1"})
    tensors = {"a": torch.rand(3, 4).to(memory_format=torch.contiguous_format), "b": torch.tensor(7)}
    save_checkpoint(tmp_path, tensors, {"name": "2", "done": {"pixel": 2}})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert set(found[0]) == {"a", "b"}
    assert torch.equal(found[0]["a"], tensors["a"])
    assert found[1]["done"] == {"pixel": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint.json"]


def test_files_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LARGEST_FILE", 1000)
    tensors = {str(index): torch.rand(100) for index in range(6)}  # 400 bytes each
    save_checkpoint(tmp_path, tensors, {"name": "1"})
    sizes = [path.stat().st_size for path in (tmp_path / "checkpoint-1").iterdir()]
    assert len(sizes) == 3
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert all(torch.equal(found[0][name], tensors[name]) for name in tensors)


def test_a_write_that_dies_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"name": "1"})
    with monkeypatch.context() as patch:

        def die(*arguments: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(checkpoint.os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, {"a": torch.zeros(2)}, {"name": "2"})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found[0]["a"], torch.ones(2))


def test_missing_or_broken_files_are_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"name": "1"})
    file = tmp_path / "checkpoint-1" / "state-000.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-3])
    with pytest.raises(ValueError, match="must name a whole checkpoint"):
        load_checkpoint(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="names 1 tensors, got 0"):
        load_checkpoint(tmp_path)


def test_optimizers_go_on_as_if_never_stopped() -> None:
    def run(interrupt: bool) -> torch.Tensor:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(4, 4))
        optimizer = torch.optim.Adam([weight], 0.1)
        for step in range(6):
            if interrupt and step == 3:
                saved = flatten_optimizer(optimizer, "optimizer")
                optimizer = torch.optim.Adam([weight], 0.1)
                restore_optimizer(
                    optimizer, {name: value.clone() for name, value in saved.items()}, "optimizer"
                )
            optimizer.zero_grad()
            (weight * step).square().sum().backward()
            optimizer.step()
        return weight.detach()

    assert torch.equal(run(interrupt=True), run(interrupt=False))


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of file sizes")
@pytest.mark.parametrize("limit", [10, 500])  # the tensors' file is refused, then checkpoint.json.tmp
def test_a_full_disk_is_told_with_its_path_and_the_checkpoint_before_stays(
    tmp_path: Path, limit: int
) -> None:
    save_checkpoint(tmp_path, {"a": torch.ones(2)}, {"name": "1"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(
            OSError, match=r"checkpoint-2: the checkpoint cannot be written: .*[Ff]ile too large"
        ):
            save_checkpoint(tmp_path, {"a": torch.zeros(2)}, {"name": "2", "notes": "x" * 500})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "checkpoint-2").exists()
    found = load_checkpoint(tmp_path)
    assert found is not None and torch.equal(found[0]["a"], torch.ones(2))
