"""The page's viewer: two pictures under one slider, zoomed together, and the loupe below them."""

from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from sr_hub.comparison import Comparison
from sr_hub.loupe import Loupe
from sr_hub.page_pictures import Example

_HERE = Path(__file__).parent


def build_viewer(examples: list[Example]) -> Any:
    """The component. Its events are ``look``, ``invented``, ``example``, ``photo`` and ``left``."""
    return gr.HTML(
        value={},
        html_template=_read("html"),
        css_template=_read("css"),
        js_on_load=_read("js"),
        apply_default_css=False,
        elem_id="viewer",
        examples=[{"name": example.name, "picture": example.thumbnail} for example in examples],
    )


def sides(comparison: Comparison, labels: tuple[str, str], left: Path | None, right: Path) -> dict[str, Any]:
    """The part of the viewer's value that shows a comparison, its images written into two folders.

    Without a folder for the left side, bicubic, there is none in it: the one that is shown stays.
    """
    part = {} if left is None else {"left": _file(comparison.bicubic, left / "bicubic.png")}
    return part | {
        "right": _file(comparison.sr, right / "sr.png"),
        "size": list(comparison.sr.size),
        "full": list(comparison.full_size),
        "labels": list(labels),
    }


def loupe_part(loupe: Loupe, names: list[str], folder: Path) -> dict[str, Any]:
    """The part of the viewer's value that fills the loupe; `names` has one for each of its images."""
    files = [_file(image, folder / f"loupe{index}.png") for index, image in enumerate(loupe.images)]
    return {
        "files": files,
        "names": names,
        "size": list(loupe.images[0].size),
        "box": list(loupe.box),
        "focus": list(loupe.focus),
    }


def overlay_part(overlay: Image.Image, folder: Path) -> dict[str, Any]:
    """The part of the viewer's value that lies on the result."""
    return _file(overlay, folder / "overlay.png")


def _file(image: Image.Image, path: Path) -> dict[str, Any]:
    """A file that gradio hands to the browser, lossless."""
    image.save(path, compress_level=1)
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def _read(suffix: str) -> str:
    return (_HERE / f"page_viewer.{suffix}").read_text(encoding="utf-8")
