"""The page's part for several photos: a gallery of the results, and one ZIP file with all of them."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from sr_hub.folders import target_name
from sr_hub.page_controls import CANNOT_START, Controls
from sr_hub.page_sessions import Sessions
from sr_hub.page_words import Tell, notice, teller
from sr_hub.service import Service, Settings, Stopped
from sr_hub.whole_files import whole_file

_THUMBNAIL = 480  # pixels a side

Update = tuple[Any, Any, Any, Any]
"""Of the lines, the gallery, the download and the Stop button."""


@dataclass
class _Batch:
    """What came of the files so far."""

    folder: Path
    gallery: list[tuple[str, str]] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def new_result(self, source: Path) -> Path:
        """Where the result of a file is to be written: a name of its own, also where case does not count."""
        name = path = Path(target_name(source))
        taken, number = {result.name.lower() for result in self.results}, 1
        while name.name.lower() in taken:
            number += 1
            name = Path(f"{path.stem} ({number}){path.suffix}")
        return self.folder / "results" / name

    def pack(self) -> Path:
        """Moves the results into one ZIP file.

        Raises:
            OSError: If it cannot be written.
        """
        path = self.folder / "sr_hub.zip"
        # Pictures are packed as well as they can be; a ZIP file has no more to gain.
        with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for result in self.results:
                archive.write(result, result.name)
                result.unlink()
        return path


class BatchEvents:
    """The functions behind the events of several photos.

    Args:
        service: Does the work.
        controls: Shared settings.
        sessions: What is kept for each tab.
    """

    def __init__(self, service: Service, controls: Controls, sessions: Sessions) -> None:
        self.service, self.controls, self.sessions = service, controls, sessions

    def start(self, files: list[str] | None, request: gr.Request) -> tuple[int, Any]:
        """Ends the run under way; returns the ticket of the next one, and shows the Stop button."""
        session = self.sessions[request.session_hash]
        self.sessions.set_batch(request.session_hash, {Path(file).resolve() for file in files or []})
        session.batch_ticket += 1
        return session.batch_ticket, gr.Button(visible=True)

    def stop(self, request: gr.Request) -> tuple[str, Any]:
        """Ends the run under way within a tile, or one that waits; what is done stays."""
        self.sessions[request.session_hash].batch_ticket += 1
        return notice("Stopped."), gr.Button(visible=False)

    def failed(self) -> tuple[str, Any]:
        """A run could not even start, as a value of the controls was none."""
        return notice(CANNOT_START), gr.Button(visible=False)

    def run(
        self,
        ticket: float,
        files: list[str] | None,
        model: str,
        fidelity: float,
        scale: str,
        width: float | None,
        consistency: bool,
        request: gr.Request,
        progress: Any = gr.Progress(),  # noqa: B008  # gradio looks for it here
    ) -> Iterator[Update]:
        """Enlarges the files one after the other; a bad one is told and stops nothing."""
        session = self.sessions[request.session_hash]
        paths = [Path(file).resolve() for file in files or []]

        def stopped() -> bool:
            return session.batch_ticket != int(ticket)

        if stopped():
            yield gr.skip(), gr.skip(), gr.skip(), gr.skip()
            return
        try:
            settings = self.controls.settings(model, fidelity, scale, width, consistency)
        except (ValueError, OSError) as error:
            yield notice(str(error)), [], _no_archive(), gr.Button(visible=False)
            return
        try:
            batch = _Batch(self.sessions.folder(request.session_hash, "batch"))
        except Stopped:
            return
        (batch.folder / "results").mkdir()
        try:
            yield from self._work(batch, paths, settings, progress, stopped)
        finally:
            if not self.sessions.is_open(request.session_hash):  # a result came after all was deleted
                shutil.rmtree(batch.folder, ignore_errors=True)

    def _work(
        self,
        batch: _Batch,
        paths: list[Path],
        settings: Settings,
        progress: Any,
        stopped: Callable[[], bool],
    ) -> Iterator[Update]:
        yield _done(batch, paths), [], _no_archive(), gr.Button(visible=True)
        for number, path in enumerate(paths, 1):
            tell = teller(progress, f"{path.name}, {number} of {len(paths)}")
            try:
                self._add(batch, path, settings, tell, stopped)
            except Stopped:
                break
            yield _done(batch, paths), batch.gallery, gr.skip(), gr.skip()
        archive = _no_archive()
        try:
            if batch.results:
                archive = gr.DownloadButton(value=str(batch.pack()), interactive=True)
        except OSError as error:
            batch.failed.append(f"the ZIP file cannot be written: {error.strerror}")
        yield _done(batch, paths, stopped=stopped()), batch.gallery, archive, gr.Button(visible=False)

    def _add(
        self, batch: _Batch, path: Path, settings: Settings, tell: Tell, stopped: Callable[[], bool]
    ) -> None:
        """Enlarges one file into the gallery, or notes why not."""
        target = batch.new_result(path)
        small = batch.folder / f"{len(batch.results)}.png"
        try:
            outcome = self.service.enlarge_file(path, target, settings, progress=tell, stopped=stopped)
            self.service.write_thumbnail(target, small, _THUMBNAIL)
        except (ValueError, OSError) as error:
            message = str(error)
            batch.failed.append(message if path.name in message else f"{path.name}: {message}")
            return
        batch.results.append(target)
        assert outcome.target_size is not None
        width, height = outcome.target_size
        batch.gallery.append((str(small), f"{target.name}, {width}×{height}"))
        batch.notices += [f"{path.name}: {said}" for said in outcome.notices]


def _done(batch: _Batch, paths: list[Path], *, stopped: bool = False) -> str:
    """The lines about a batch of these files, as HTML."""
    if not paths:
        return ""
    said = f"{len(batch.results)} of {len(paths)} enlarged"
    said += f", {len(batch.failed)} failed" if batch.failed else ""
    said += "; stopped." if stopped else "."
    return "".join(map(notice, [said, *batch.failed, *batch.notices]))


def build_batch(service: Service, controls: Controls, sessions: Sessions) -> None:
    """Draws the part of the page and connects it.

    Runs have a queue of their own: between two pictures the service works for others, so that nobody waits
    for all of somebody's photos.

    Args:
        service: Does the work.
        controls: Shared settings.
        sessions: What is kept for each tab.
    """
    events = BatchEvents(service, controls, sessions)
    ticket = gr.Number(0, visible=False)
    files = gr.File(label="Photos", file_count="multiple", height=180, elem_id="batch-files")
    with gr.Row():
        again = gr.Button("Enlarge all", variant="primary", size="sm", min_width=120, elem_id="batch-start")
        stop = gr.Button("Stop", visible=False, size="sm", min_width=80, elem_id="batch-stop")
        archive = gr.DownloadButton(
            "Download all (ZIP)", interactive=False, size="sm", min_width=160, elem_id="batch-download"
        )
    lines = gr.HTML("", elem_id="batch-facts")
    gallery = gr.Gallery(
        label="Results, shown small", format="png", columns=4, object_fit="contain", interactive=False,
        buttons=[], elem_id="batch-results",
    )  # fmt: skip
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    gr.on([files.upload, again.click], events.start, files, [ticket, stop], **at_once).then(
        events.run, [ticket, files, *controls.inputs], [lines, gallery, archive, stop],
        trigger_mode="multiple", concurrency_id="batch", concurrency_limit=1, show_progress_on=lines,
        api_visibility="private",
    ).failure(events.failed, None, [lines, stop], **at_once)  # fmt: skip
    stop.click(events.stop, None, [lines, stop], **at_once)


def _no_archive() -> Any:
    return gr.DownloadButton(value=None, interactive=False)
