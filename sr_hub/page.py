"""The page: one photo, or several, enlarged on this computer."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from sr_hub.page_api import add_api
from sr_hub.page_batch import build_batch
from sr_hub.page_controls import Controls, build_controls
from sr_hub.page_photo import FORMATS, PhotoEvents
from sr_hub.page_pictures import example_pictures
from sr_hub.page_sessions import Sessions
from sr_hub.page_viewer import build_viewer
from sr_hub.service import Service

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")

_FILES_LIVE = 4 * 3600
"""Seconds after which files of tabs that never said goodbye are deleted."""

_QUEUE = 32  # runs that wait, of all tabs


def build_page(service: Service, model: str, closing: ExitStack) -> gr.Blocks:
    """The page, to be launched with `STYLE` and `theme`.

    Args:
        service: Does the work.
        model: The family that is chosen at first; read here, so that a bad name fails at the start.
        closing: Deletes the files that are left, when it is closed.

    Raises:
        ValueError, OSError: As of `Service.facts`.
    """
    uploads = Path(get_upload_folder())
    sessions = Sessions(uploads)
    closing.callback(sessions.close_all)
    examples = example_pictures()
    with gr.Blocks(title="sr_hub", delete_cache=(600, _FILES_LIVE)) as page:
        gr.HTML(
            "<h1>sr_hub</h1><p>Photos four times as large. Everything happens on this computer.</p>",
            elem_id="title",
        )
        with gr.Row(equal_height=False, elem_id="desk"):
            with gr.Column(scale=3, min_width=320, elem_id="work"), gr.Tabs():
                with gr.Tab("One photo") as one:
                    viewer = build_viewer(examples)
                    with gr.Row(elem_id="under"):
                        facts = gr.HTML("", elem_id="facts")
                        stop = gr.Button("Stop", visible=False, size="sm", min_width=80, elem_id="stop")
                with gr.Tab("Several photos") as several:
                    batch = gr.Column()
            with gr.Column(scale=1, min_width=280, elem_id="controls"):
                controls = build_controls(service, model)
                with gr.Column(elem_id="of-one-photo") as of_one_photo:
                    test = gr.Checkbox(
                        False, label="Test on a known picture", elem_id="test",
                        info="Your photo is shrunk first, then restored and compared with itself.",
                    )  # fmt: skip
                    files = _build_download()
        with batch:
            build_batch(service, controls, sessions)
        events = PhotoEvents(service, controls, sessions, uploads, examples)
        _connect(events, controls, viewer, facts, stop, files, test)
        for tab, photo in ((one, True), (several, False)):
            tab.select(
                lambda photo=photo: gr.Column(visible=photo), None, of_one_photo,
                queue=False, show_progress="hidden", api_visibility="private",
            )  # fmt: skip
        page.unload(events.close)
        add_api(service, sessions)
    return page.queue(max_size=_QUEUE)


def theme() -> Any:
    """Greys without a tint, as around a photo; fonts of the system, as nothing is fetched."""
    return gr.themes.Base(
        primary_hue="blue",
        neutral_hue="neutral",
        radius_size="md",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_600")  # of the light mode, where gradio's is hard to read


def _build_download() -> tuple[gr.DownloadButton, gr.Dropdown, gr.Slider]:
    with gr.Group():
        suffix = gr.Dropdown(FORMATS, value="", label="Format", elem_id="format")
        quality = gr.Slider(50, 100, value=95, step=1, label="Quality", visible=False, elem_id="quality")
    download = gr.DownloadButton("Download", variant="primary", interactive=False, elem_id="download")
    return download, suffix, quality


def _connect(
    events: PhotoEvents,
    controls: Controls,
    viewer: Any,
    facts: gr.HTML,
    stop: gr.Button,
    files: tuple[gr.DownloadButton, gr.Dropdown, gr.Slider],
    test: gr.Checkbox,
) -> None:
    """What starts what. Whatever computes waits in one queue; what only takes note does not."""
    download, suffix, quality = files
    ticket = gr.Number(0, visible=False)
    # Of what may start no run, which then must not take the ticket of one that is about to begin.
    of_width, of_fidelity = gr.Number(0, visible=False), gr.Number(0, visible=False)
    at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    computes: dict[str, Any] = {
        "concurrency_id": "network", "concurrency_limit": 1, "api_visibility": "private",
    }  # fmt: skip
    changes = [
        *(control.input for control in (controls.fidelity, controls.scale, controls.consistency, test)),
        controls.width.submit,
    ]  # fmt: skip
    handed_in = [
        viewer.photo(events.take_upload, None, [ticket, stop], **at_once),
        viewer.example(events.take_example, None, [ticket, stop], **at_once),
    ]
    # In the queue, without which gradio shows no toast.
    viewer.left(events.tell_left, None, None, show_progress="hidden", api_visibility="private")
    for photo in handed_in:
        photo.then(events.offer_quality, suffix, quality, **at_once)
    starts = [
        gr.on(changes, events.start, None, [ticket, stop], trigger_mode="always_last", **at_once),
        controls.width.blur(events.start_with_width, controls.width, [of_width, stop], **at_once),
        # Its arrow back and a number out of its range are no input.
        controls.fidelity.release(
            events.start_with_fidelity, controls.fidelity, [of_fidelity, stop], **at_once
        ),
        *handed_in,
        controls.model.input(events.start, None, [ticket, stop], **at_once).then(
            events.choose, controls.model, [controls.facts, controls.fidelity, controls.ends],
            trigger_mode="multiple", show_progress="hidden", **computes,
        ),
    ]  # fmt: skip
    tickets = [ticket, of_width, of_fidelity, *[ticket] * (len(starts) - 3)]
    for start, number in zip(starts, tickets, strict=True):
        start.then(
            events.run, [number, test, suffix, quality, *controls.inputs], [viewer, facts, download, stop],
            trigger_mode="multiple", show_progress_on=facts, **computes,
        ).failure(events.failed, number, [viewer, facts, download, stop], **at_once)  # fmt: skip
    stop.click(events.stop, None, [viewer, facts, stop], **at_once)
    viewer.look(
        events.explorer.look, None, [viewer, facts, download],
        trigger_mode="always_last", show_progress="hidden", **computes,
    )  # fmt: skip
    viewer.invented(
        events.explorer.invented, None, [viewer, facts, download, stop], show_progress_on=facts, **computes
    )
    gr.on(
        [suffix.input, quality.input, quality.release], events.encode, [suffix, quality],
        [viewer, facts, download, quality],
        trigger_mode="always_last", show_progress="hidden", **computes,
    )  # fmt: skip
