"""One photo on the page without a browser: what each event returns."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from page_driver import make_models, make_photo
from PIL import Image

from sr_hub import cli, page_photo
from sr_hub.page import build_page
from sr_hub.page_controls import build_controls
from sr_hub.page_photo import PhotoEvents
from sr_hub.page_sessions import Sessions
from sr_hub.service import Limits, Service

REQUEST = SimpleNamespace(session_hash="tab")


@dataclass
class Tab:
    """A tab without a browser."""

    events: PhotoEvents
    model: str
    root: Path
    seen: list[tuple[Any, ...]] = field(default_factory=list)

    def hand_in(self, size: tuple[int, int] = (64, 48)) -> int:
        """A photo, as an upload; returns the ticket of its run."""
        folder = self.root / f"upload{len(list(self.root.glob('upload*')))}"
        folder.mkdir(parents=True)
        path = make_photo(folder, "a.png", size)
        ticket, _ = self.events.take_upload(SimpleNamespace(path=str(path), late=False), REQUEST)
        return ticket

    def run(self, ticket: int, after: Callable[[int], None] = lambda _: None, **values: Any) -> None:
        """Fills `seen` with the updates; `after` is called with the number of those that came."""
        asked = {"test": False, "suffix": "", "quality": 95, "model": self.model, "fidelity": 0.5}
        asked |= {"scale": "4", "width": None, "consistency": False} | values
        self.seen = []
        for update in self.events.run(ticket, **asked, request=REQUEST, progress=lambda *_, **__: None):
            self.seen.append(update)
            after(len(self.seen))

    def views(self) -> list[dict[str, Any]]:
        """The values of the viewer that show pictures."""
        return [update[0] for update in self.seen if "left" in update[0]]

    def files(self) -> list[str]:
        """Names of the files that were offered as the download, in turn."""
        downloads = [update[2] for update in self.seen if isinstance(update[2], gr.DownloadButton)]
        values = [download.constructor_args["value"] for download in downloads]
        return [Path(value).name for value in values if value]


@pytest.fixture
def tab(tmp_path: Path) -> Tab:
    family, _ = make_models(tmp_path / "models")
    root = (tmp_path / "cache").resolve()
    service, sessions = Service(device="cpu"), Sessions(root)
    with gr.Blocks():
        controls = build_controls(service, str(family))
    return Tab(PhotoEvents(service, controls, sessions, root, []), str(family), root)


def test_a_result_of_the_preview_s_size_has_its_own_bicubic(tab: Tab) -> None:
    tab.run(tab.hand_in((900, 900)), scale="width", width=1280)
    middle, whole = tab.views()[:2]
    assert middle["full"] == whole["full"] == [1280, 1280]
    with Image.open(whole["left"]["path"]) as left, Image.open(tab.events.sessions["tab"].photo) as photo:
        assert np.array_equal(
            np.asarray(left), np.asarray(photo.resize((1280, 1280), Image.Resampling.BICUBIC))
        )


def test_stop_after_the_result_leaves_its_download(tab: Tab) -> None:
    def stop(count: int) -> None:
        if tab.files():
            tab.events.stop(REQUEST)

    tab.run(tab.hand_in(), stop)
    assert tab.files() == ["a_x4.png"]
    assert "loupe" not in tab.views()[-1], "the ends were not compared any more"
    tab.run(tab.events.start(REQUEST)[0], scale="2")
    assert tab.files() == ["a_x2.png"]


def test_a_run_that_cannot_start_takes_the_stop_button_and_the_file_away(tab: Tab) -> None:
    view, said, download, stop = tab.events.failed(tab.hand_in(), REQUEST)
    assert view["turn"] and "Nothing came of it" in said
    assert download.interactive is False and stop.visible is False


def test_without_its_photo_every_event_asks_for_one(tab: Tab) -> None:
    """As after the browser was out of reach."""
    tab.run(tab.events.start(REQUEST)[0])
    click = SimpleNamespace(x=0.5, y=0.5)
    invented = list(tab.events.explorer.invented(REQUEST, lambda *_, **__: None))
    turns = set()
    for update in (
        tab.seen[-1],
        tab.events.explorer.look(click, REQUEST),
        invented[-1],
        tab.events.encode(".png", 95, REQUEST),
    ):
        view, said, download = update[:3]
        assert set(view) == {"turn"} and "Hand in a photo first." in said and download.interactive is False
        turns.add(view["turn"])
    assert len(turns) == 4, "each is a new value"


def test_the_width_starts_a_run_only_if_it_changed(tab: Tab) -> None:
    first = tab.hand_in()
    tab.run(first, scale="width", width=100)
    session = tab.events.sessions["tab"]
    ticket, _ = tab.events.start_with_width(100, REQUEST)
    assert session.ticket == first and not tab.events.sessions.is_wanted("tab", ticket)
    ticket, _ = tab.events.start_with_width(101, REQUEST)
    assert tab.events.sessions.is_wanted("tab", ticket) and ticket > first


def test_the_fidelity_let_go_starts_a_run_only_if_it_changed(tab: Tab) -> None:
    first = tab.hand_in()
    tab.run(first, fidelity=0.5)
    ticket, _ = tab.events.start_with_fidelity(0.5, REQUEST)
    assert not tab.events.sessions.is_wanted("tab", ticket)
    ticket, _ = tab.events.start_with_fidelity(0.25, REQUEST)  # by the slider's arrow back
    assert tab.events.sessions.is_wanted("tab", ticket) and ticket > first


def test_the_test_on_a_known_picture_needs_no_size_of_a_result(tab: Tab) -> None:
    tab.events.service = Service(Limits(output_megapixels=0.01), device="cpu")
    tab.run(tab.hand_in((96, 96)), test=True, scale="width", width=None)
    assert any("PSNR-Y" in update[1] for update in tab.seen)
    tab.run(tab.events.start(REQUEST)[0])
    assert "at most 0.01 are made here" in tab.seen[-1][1]


def test_the_quality_is_offered_where_it_counts(tab: Tab) -> None:
    tab.hand_in()
    for suffix, offered in (("", False), (".jpg", True), (".webp", True), (".png", False)):
        assert tab.events.offer_quality(suffix, REQUEST).visible is offered
    photo = tab.events.sessions["tab"].photo
    assert photo is not None
    with Image.open(photo) as image:
        for suffix, offered in ((".jpg", True), (".avif", False)):
            path = photo.with_name(f"a{suffix}")
            image.save(path)
            tab.events.take_upload(SimpleNamespace(path=str(path), late=False), REQUEST)
            assert tab.events.offer_quality("", REQUEST).visible is offered


def test_an_avif_download_is_that_of_the_command_line(tab: Tab, tmp_path: Path) -> None:
    folder = tab.root / "upload"
    folder.mkdir(parents=True)
    with Image.open(make_photo(folder, "a.png")) as image:
        image.save(folder / "a.avif")
    tab.run(tab.events.take_upload(SimpleNamespace(path=str(folder / "a.avif"), late=False), REQUEST)[0])
    (download,) = (u[2] for u in tab.seen if isinstance(u[2], gr.DownloadButton) and u[2].interactive)
    words = ["upscale", folder / "a.avif", tmp_path / "b.avif", "--model", tab.model, "--fidelity", 0.5]
    assert cli.main([str(word) for word in words]) == 0
    made = Path(download.constructor_args["value"])
    assert made.read_bytes() == (tmp_path / "b.avif").read_bytes()


def test_the_test_on_a_known_picture_tells_its_true_size_and_is_bound(tab: Tab) -> None:
    tab.run(tab.hand_in((102, 80)), test=True)
    (said,) = (update[1] for update in tab.seen if "PSNR-Y" in update[1])
    assert "Your photo, 102×80, was shrunk to 25×20" in said
    assert "the middle 100×80 pixels take part" in said
    free = tab.events.sessions["tab"].kept
    tab.run(tab.events.start(REQUEST)[0], test=True, consistency=True)
    bound = tab.events.sessions["tab"].kept
    assert free is not None and bound is not None and not np.array_equal(free.pixels, bound.pixels)


def test_another_model_ends_the_run_before_it_waits_in_the_queue(
    tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tab.root))
    with ExitStack() as closing:
        page = build_page(tab.events.service, tab.model, closing)
    events = page.get_config_file()["dependencies"]
    model = next(part["id"] for part in page.config["components"] if part["props"].get("elem_id") == "model")
    (first,) = (event for event in events if (model, "input") in map(tuple, event["targets"]))
    (second,) = (event for event in events if event["trigger_after"] == first["id"])
    assert first["queue"] is False and second["queue"] is not False
    names = {event["id"]: event["api_name"] for event in events}
    assert names[first["id"]].startswith("start") and names[second["id"]].startswith("choose")
    ticket = next(part["id"] for part in page.config["components"] if part["id"] in first["outputs"])
    assert ticket in first["outputs"] and ticket not in second["outputs"], (
        "Stop would be undone by the choice"
    )


@pytest.mark.parametrize("phase", ["compare", "keep", "download"])
def test_a_tab_closed_in_the_last_phase_leaves_nothing(
    tab: Tab, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    def close_after(function: Callable[..., Any]) -> Callable[..., Any]:
        def closing(*arguments: Any) -> Any:
            result = function(*arguments)
            tab.events.close(REQUEST)
            return result

        return closing

    ticket = tab.hand_in()
    if phase == "compare":
        monkeypatch.setattr(page_photo, "compare", close_after(page_photo.compare))
    elif phase == "keep":
        sessions = tab.events.sessions
        monkeypatch.setattr(sessions, "keep", close_after(sessions.keep))
    tab.run(ticket, lambda count: tab.events.close(REQUEST) if phase == "download" and tab.views() else None)
    assert not list(tab.root.rglob("*.*")) and len(tab.events.sessions) == 0


def test_a_photo_handed_in_in_the_last_phase_gets_nothing_of_the_one_before(
    tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = page_photo.compare
    tickets: list[int] = []

    def replaced(*arguments: Any) -> Any:
        monkeypatch.setattr(page_photo, "compare", compare)
        tickets.append(tab.hand_in((32, 24)))
        return compare(*arguments)

    monkeypatch.setattr(page_photo, "compare", replaced)
    tab.run(tab.hand_in())
    session = tab.events.sessions["tab"]
    assert tab.views() == [] and tab.files() == []
    assert session.view == {} and session.kept is None and session.shown is None
    tab.run(tickets[0])
    assert tab.views()[-1]["full"] == [128, 96]


def test_after_the_middle_nothing_of_the_result_before_is_offered(tab: Tab) -> None:
    tab.run(tab.hand_in((900, 900)), test=True)
    assert tab.files() == ["a_restored.png"]

    def stop(count: int) -> None:
        if tab.views():
            tab.events.stop(REQUEST)

    tab.run(tab.events.start(REQUEST)[0], stop)
    session = tab.events.sessions["tab"]
    assert session.shown is None and session.kept is None and session.known is None
    *_, download, _ = tab.events.encode(".webp", 95, REQUEST)
    assert download.constructor_args["value"] is None


def test_every_run_that_fails_is_cleared_up(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tab.root))
    with ExitStack() as closing:
        events = build_page(tab.events.service, tab.model, closing).get_config_file()["dependencies"]
    runs = {event["id"] for event in events if event["api_name"].startswith("run")}
    cleared = {event["trigger_after"] for event in events if event["trigger_only_on_failure"]}
    assert len(runs) >= 5 and runs == cleared
