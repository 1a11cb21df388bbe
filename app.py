"""The page: drop a picture, see it enlarged beside bicubic, download it. ``python app.py --help``."""

import argparse
import html
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported: nothing is sent anywhere

import gradio as gr  # noqa: E402

from sr_hub.comparison import compare, load_generator  # noqa: E402
from sr_hub.encoding import write_picture  # noqa: E402
from sr_hub.generator import DEFAULT_FIDELITY  # noqa: E402
from sr_hub.pretrained import DEFAULT_MODEL, find_model  # noqa: E402

INTRODUCTION = """
# sr_hub

Drop a photo: it comes back larger and sharper. Everything happens on this computer.
"""

STYLE = """
.gradio-container, .gradio-container > main {width: 100% !important}
.gradio-container > main {max-width: 1280px !important; margin: 0 auto !important}
#facts {min-height: 1.6em}
#facts p {font-variant-numeric: tabular-nums}
footer {display: none !important}
"""

ONE_DAY = 86_400  # seconds


def uploaded_path(payload: gr.data_classes.ImageData | None) -> str | None:
    """Returns where gradio put the upload."""
    return payload.path if payload else None


def build_page(model: str) -> gr.Blocks:
    """Returns the page for a model, which is loaded once here so that a bad name fails at the start."""
    load = lru_cache(maxsize=4)(load_generator)
    two_ends = find_model(model).fidelity is not None
    scale = load(model, DEFAULT_FIDELITY if two_ends else None).scale

    def nothing() -> tuple[None, str, Any]:
        return None, "", gr.DownloadButton(interactive=False, value=None)

    def enlarge(
        file: str | None,
        fidelity: float,
        progress: Any = gr.Progress(),  # noqa: B008  # gradio looks for it here
    ) -> Iterator[tuple[Any, str, Any]]:
        if file is None:
            yield nothing()
            return
        source = Path(file)
        generator = load(model, fidelity if two_ends else None)
        with tempfile.TemporaryDirectory(prefix="sr_hub-") as folder:
            try:
                result = compare(
                    generator,
                    source,
                    lambda done, total: progress((done, total), desc="Enlarging", unit="tiles"),
                )
                target = Path(folder) / f"{source.stem}_x{scale}.png"
                write_picture(result.picture, target)
            except ValueError as error:
                # The message becomes HTML, and a file's name may hold any.
                message = html.escape(str(error).replace(f"{source.parent}{os.sep}", ""))
                yield nothing()  # else the result before stayed, beside another picture
                raise gr.Error(message, print_exception=False) from error
            previews = [Path(folder) / f"{name}.png" for name in ("bicubic", "sr")]
            for path, image in zip(previews, (result.bicubic, result.sr), strict=True):
                image.save(path, compress_level=1)
            line = " · ".join([result.facts, *result.notices])
            # After the yield gradio has copied the files into its cache, which it clears by itself.
            yield tuple(previews), line, gr.DownloadButton(interactive=True, value=str(target))

    with gr.Blocks(title="sr_hub", delete_cache=(ONE_DAY, ONE_DAY)) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                upload = gr.Image(
                    label="Photo", type="filepath", image_mode=None, format="png", height=280,
                    sources=["upload", "clipboard"], buttons=[], elem_id="upload",
                )  # fmt: skip
                fidelity = gr.Slider(
                    0, 1, value=DEFAULT_FIDELITY, step=0.05, label="Detail ↔ fidelity", visible=two_ends,
                    info="0 draws the sharpest detail, some of it invented; 1 stays closest to the photo.",
                    elem_id="fidelity",
                )  # fmt: skip
                download = gr.DownloadButton(
                    "Download the result (PNG)", variant="primary", interactive=False, elem_id="download"
                )
            with gr.Column(scale=3, min_width=320):
                facts = gr.Markdown(
                    "Sizes, time and device stand here when a result is ready.", elem_id="facts"
                )
                slider = gr.ImageSlider(
                    label=f"Bicubic (left) · ours (right), {scale}×", format="png", type="filepath",
                    image_mode=None, interactive=False, height=580, max_height=580, elem_id="result",
                )  # fmt: skip
        # gr.Image would open the file by Pillow here and show the raw exception of a bad one; `compare`
        # reads it anyway, and says in a sentence what is wrong.
        upload.preprocess = uploaded_path  # type: ignore[method-assign]  # subclasses of components need a frontend
        gr.on(
            [upload.input, fidelity.release], enlarge, [upload, fidelity], [slider, facts, download],
            api_name="upscale", trigger_mode="always_last", concurrency_limit=1, show_progress_on=slider,
        )  # fmt: skip
    return page.queue(max_size=16)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help="bundled name, folder or Hub repository (default: %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="open a public link through gradio's servers")
    arguments = parser.parse_args()
    try:
        page = build_page(arguments.model)
        page.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            share=arguments.share,
            max_file_size="256mb",
            run_history=False,
            footer_links=[],
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
        )
    except (OSError, ValueError) as error:  # a missing or bad model, or a port that is taken
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
