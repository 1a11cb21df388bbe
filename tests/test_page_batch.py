"""Several photos at once: all of them in one ZIP file, the bad ones told."""

import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from page_driver import make_models, make_photo
from PIL import Image

from sr_hub import cli
from sr_hub.page_batch import BatchEvents, build_batch
from sr_hub.page_controls import build_controls
from sr_hub.page_sessions import Sessions
from sr_hub.service import Service


@dataclass
class Desk:
    """A tab without a browser."""

    events: BatchEvents
    sessions: Sessions
    model: str
    root: Path
    seen: list[tuple[Any, ...]] = field(default_factory=list)

    def run(self, *files: Path, during: Callable[[int, int], None] = lambda *_: None, **values: Any) -> Any:
        """Hands files in; returns the last update of lines, gallery, download and Stop button."""
        request = SimpleNamespace(session_hash="tab")
        asked = {
            "model": self.model,
            "fidelity": 0.5,
            "scale": "4",
            "width": None,
            "consistency": False,
        } | values
        paths = [str(file) for file in files]
        ticket, _ = self.events.start(paths, request)
        self.seen = []
        updates = self.events.run(
            ticket,
            paths,
            **asked,
            request=request,
            progress=lambda done, **_: during(*done),
        )
        for update in updates:
            self.seen.append(update)
        return self.seen[-1]

    @staticmethod
    def zipped(update: Any) -> dict[str, bytes]:
        with zipfile.ZipFile(update[2].constructor_args["value"]) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    family, _ = make_models(tmp_path / "models")
    service, sessions = Service(device="cpu"), Sessions(tmp_path / "cache")
    with gr.Blocks():
        controls = build_controls(service, str(family))
        build_batch(service, controls, sessions)
    return Desk(BatchEvents(service, controls, sessions), sessions, str(family), tmp_path / "cache")


def upload(desk: Desk, name: str, content: bytes | None = None, size: tuple[int, int] = (24, 20)) -> Path:
    """A file where gradio puts uploads."""
    folder = desk.root / f"upload{len(list(desk.root.glob('upload*')))}"
    folder.mkdir(parents=True)
    if content is None:
        return make_photo(folder, name, size)
    (folder / name).write_bytes(content)
    return folder / name


def lines(update: Any) -> list[str]:
    return re.findall(r"<p[^>]*>(.*?)</p>", update[0])


def test_bytes_are_those_of_the_command_line_and_bad_files_stop_nothing(desk: Desk, tmp_path: Path) -> None:
    photos = [upload(desk, "a.png"), upload(desk, "b.jpg"), upload(desk, "c.webp")]
    bad = [upload(desk, "<i>bad.png", b"not an image"), upload(desk, "empty.jpg", b"")]
    last = desk.run(photos[0], bad[0], photos[1], bad[1], photos[2], fidelity=0.25)
    zipped = desk.zipped(last)
    assert list(zipped) == ["a.png", "b.jpg", "c.webp"]
    for photo in photos:
        out = tmp_path / photo.name
        words = ["--model", desk.model, "--fidelity", "0.25", "--device", "cpu"]
        assert cli.main(["upscale", str(photo), str(out), *words]) == 0
        assert zipped[photo.name] == out.read_bytes()
    said = lines(last)
    assert said[0] == "3 of 5 enlarged, 2 failed."
    assert said[1].startswith("&lt;i&gt;bad.png: expected an image file, got")
    assert said[2].startswith("empty.jpg: expected an image file, got an empty file")
    assert str(desk.root) not in last[0]
    assert [caption for _, caption in last[1]] == [f"{name}, 96×80" for name in zipped]
    for path, _ in last[1]:
        with Image.open(path) as image:
            assert image.size == (96, 80)
    assert [lines(update)[0] for update in desk.seen[:4]] == [
        "0 of 5 enlarged.",
        "1 of 5 enlarged.",
        "1 of 5 enlarged, 1 failed.",
        "2 of 5 enlarged, 1 failed.",
    ]
    assert desk.seen[0][3].visible is True and last[3].visible is False


def test_names_are_unique_whatever_their_case(desk: Desk) -> None:
    names = ["a.png", "A.PNG", "a.png", "a (2).png", "b.ppm", "photo.ico"]
    zipped = desk.zipped(desk.run(*(upload(desk, name, size=(24 + i, 20)) for i, name in enumerate(names))))
    assert list(zipped) == ["a.png", "A (2).PNG", "a (3).png", "a (2) (2).png", "b.ppm", "photo.ico.png"]
    for index, content in enumerate(list(zipped.values())[:5]):
        with Image.open(io.BytesIO(content)) as image:
            assert image.size == (4 * (24 + index), 80)


def test_stop_keeps_what_is_done(desk: Desk) -> None:
    photos = [upload(desk, f"{index}.png") for index in range(4)]

    def during(done: int, total: int) -> None:
        if len(desk.seen) == 3:  # the third file is under way
            desk.events.stop(SimpleNamespace(session_hash="tab"))

    last = desk.run(*photos, during=during)
    # The tile that was under way was the third picture's only one.
    assert lines(last)[0] == "2 of 4 enlarged; stopped."
    assert list(desk.zipped(last)) == ["0.png", "1.png"]
    assert last[3].visible is False


def test_stop_of_a_batch_that_waits_is_seen(desk: Desk) -> None:
    request = SimpleNamespace(session_hash="tab")
    paths = [str(upload(desk, "a.png"))]
    ticket, shown = desk.events.start(paths, request)
    said, button = desk.events.stop(request)
    assert shown.visible is True and "Stopped." in said and button.visible is False
    updates = desk.events.run(ticket, paths, desk.model, 0.5, "4", None, False, request)
    assert [set(map(str, update)) for update in updates] == [{str(gr.skip())}], "nothing is done"


def test_files_of_a_batch_that_waits_go_with_the_tab(desk: Desk) -> None:
    file = upload(desk, "a.png")
    desk.events.start([str(file)], SimpleNamespace(session_hash="tab"))
    desk.sessions.close("tab")
    assert not file.exists()


def test_nothing_good_makes_no_zip_file(desk: Desk) -> None:
    last = desk.run(upload(desk, "bad.png", b"x"))
    assert lines(last)[0] == "0 of 1 enlarged, 1 failed." and last[2].interactive is False and last[1] == []
    assert lines(desk.run(upload(desk, "a.png"), model="no-such-model"))[0].startswith("model must be one of")
    assert desk.run()[0] == ""


def test_files_go_with_the_tab(desk: Desk) -> None:
    first, second = upload(desk, "a.png"), upload(desk, "b.png")
    desk.run(first, second)
    assert not list(desk.root.glob("*/results/*")), "they are in the ZIP file"
    desk.run(second)
    assert not first.exists() and second.exists()
    desk.sessions.close("tab")
    assert not list(desk.root.iterdir())
