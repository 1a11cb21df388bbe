"""A GPU that is lent: the work in another process, as ZeroGPU's `spaces` does it, changes no result."""

import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_hub import lent_gpu
from sr_hub.encoding import write_picture
from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError, Picture
from sr_hub.service import Service, Settings, Stopped


def _serve(pipe: Connection, arguments: tuple[Any, ...]) -> None:
    """In the process that would have the GPU: goes on while each step is answered with True."""
    steps = lent_gpu._steps(*arguments)
    for step in steps:
        pipe.send(step)
        if not pipe.recv():
            steps.close()
    pipe.send(None)


def _in_another_process(*arguments: Any) -> Iterator[Any]:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, arguments))
    process.start()
    wanted = True
    try:
        while (step := here.recv()) is not None:
            try:
                yield step
            except GeneratorExit:
                wanted = False
                raise
            finally:
                here.send(wanted)
    finally:
        process.join(60)
        assert process.exitcode == 0


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    monkeypatch.setattr(lent_gpu, "GPU", object())
    monkeypatch.setattr(lent_gpu, "_marked", _in_another_process)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    return Service(models=None)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    write_picture(Picture(pixels), tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_no_gpu_is_lent_outside_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lent_gpu, "GPU", object())
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert not lent_gpu.is_lent()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert lent_gpu.is_lent()
    monkeypatch.setattr(lent_gpu, "GPU", None)
    assert not lent_gpu.is_lent()


def test_result_is_that_of_this_process(service: Service, photo: Path, tmp_path: Path) -> None:
    settings = Settings(str(tmp_path / "model"))
    seen: list[tuple[int, int]] = []
    lent = service.enlarge(photo, settings, progress=lambda *steps: seen.append(steps))
    own = Service(device="cpu").enlarge(photo, settings)
    assert np.array_equal(lent.picture.pixels, own.picture.pixels)
    assert seen == [(1, 1)]
    assert lent.facts.endswith("lent GPU")
    files = [tmp_path / "lent.png", tmp_path / "own.png"]
    service.enlarge_file(photo, files[0], settings)
    Service(device="cpu").enlarge_file(photo, files[1], settings)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_errors_keep_their_words(service: Service, photo: Path, tmp_path: Path) -> None:
    def fail(*arguments: Any) -> Iterator[Any]:
        yield "error", ImageError(f"{photo}: not enough memory")

    lent_gpu._marked = fail  # the fixture puts the true one back
    with pytest.raises(ImageError, match="^photo.png: not enough memory"):
        service.enlarge(photo, Settings(str(tmp_path / "model")))


def test_an_end_without_a_result_is_an_error(service: Service, photo: Path, tmp_path: Path) -> None:
    lent_gpu._marked = lambda *arguments: (step for step in ())  # the fixture puts the true one back
    with pytest.raises(RuntimeError, match="without a result"):
        service.enlarge(photo, Settings(str(tmp_path / "model")))


def test_stop_ends_the_work(service: Service, photo: Path, tmp_path: Path) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Stopped):
        service.enlarge(photo, Settings(str(tmp_path / "model")), stopped=lambda: next(asked))
    assert threading.active_count() < 20


def test_steps_stop_after_the_tile_that_is_under_way(photo: Path, tmp_path: Path) -> None:
    class Endless:
        """Stands for an `Enlarger` with more tiles than anybody waits for."""

        generator = SRGenerator(features=4, blocks=1)

        def make(self, job: Any, loaded: Any, progress: Any, hold: bool) -> None:
            for tile in range(10**9):
                progress(tile, 10**9)

    steps = lent_gpu._steps(Endless(), None, None, True)  # type: ignore[arg-type]  # only make is used
    assert next(iter(steps)) == ("progress", (0, 10**9))
    threads = threading.active_count()
    steps.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == threads - 1
