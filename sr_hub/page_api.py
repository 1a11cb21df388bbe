"""The page's programming interface: ``/upscale`` and ``/compare``, for ``gradio_client`` and others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import gradio as gr
from gradio import processing_utils

from sr_hub.encoding import cannot_keep, write_picture, write_strips
from sr_hub.images import Picture
from sr_hub.page_files import ShortLived
from sr_hub.page_sessions import Sessions
from sr_hub.pretrained import DEFAULT_MODEL
from sr_hub.row_resize import resize_rows
from sr_hub.service import Service, Settings

Format = Literal["png", "tiff", "webp", "jpeg"]
_SUFFIXES = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpeg": ".jpg"}
_ROWS = 64  # of the input, resized at once


def add_api(service: Service, sessions: Sessions) -> None:
    """Adds the two functions to the page that is being built.

    What they make can be fetched for some minutes. They read nothing but what was uploaded, and from here on
    the process fetches no picture from an address that a client names.

    Args:
        service: Does the work.
        sessions: Of the page's tabs; keeps the folders that the functions use.
    """
    files = sessions.short_lived
    processing_utils.async_ssrf_protected_download = partial(_own_file, files.root)

    def upscale(
        file: gr.FileData,
        model: str = DEFAULT_MODEL,
        fidelity: float | None = None,
        scale: float | None = None,
        width: int | None = None,
        consistency: bool = False,
        format: Format = "png",
    ) -> gr.FileData:
        """Enlarges a picture; the file is the one that `sr-hub upscale` writes for the same settings.

        Args:
            file: The picture: any format that Pillow reads.
            model: Bundled name; also a model folder or Hub repository where this server allows it.
            fidelity: 1 stays true to the picture, 0 invents detail; null for the model's own blend.
            scale: Times that of the picture; null for the model's own, 4.
            width: Of the result in pixels, in the place of a scale.
            consistency: Whether the result, shrunk again, shall give back the picture.
            format: Of the result: png, tiff, webp or jpeg.
        """
        with _said_to_the_client(), _uploaded(file, files) as path:
            if not isinstance(format, str) or format not in _SUFFIXES:
                raise ValueError(f"format must be one of {', '.join(_SUFFIXES)}, got {format!r:.40}")
            settings = _settings(model, fidelity, scale, width, consistency)
            folder = files.new()
            target = folder / f"{path.stem}_sr{_SUFFIXES[format]}"
            with _deleted_on_error(files, folder):
                service.enlarge_file(path, target, settings, progress=_telling())
            return gr.FileData(path=str(target), orig_name=target.name)

    def compare(
        file: gr.FileData,
        model: str = DEFAULT_MODEL,
        fidelity: float | None = None,
        test: bool = False,
    ) -> tuple[gr.FileData, gr.FileData, dict]:
        """Enlarges a picture by bicubic and by the model: two PNG files of one size, and the facts.

        With `test` the picture is shrunk first, restored both ways and scored against itself.

        Args:
            file: The picture: any format that Pillow reads.
            model: Bundled name; also a model folder or Hub repository where this server allows it.
            fidelity: 1 stays true to the picture, 0 invents detail; null for the model's own blend.
            test: Whether to test on the picture itself.

        Returns:
            The picture by bicubic, the picture by the model, and the facts: input_size and output_size as
            [width, height], notices, and consistency (share of the input that the shrunk result gives back),
            seconds and megapixels_per_second; in a test psnr_y and ssim_y of the model's, bicubic_psnr_y and
            bicubic_ssim_y instead, where a psnr_y is null if the picture was restored without any error, as
            one of a single colour is by bicubic.
        """
        with _said_to_the_client(), _uploaded(file, files) as path:
            settings = _settings(model, fidelity, None, None, False)
            telling = _telling()
            facts: dict[str, Any]
            if _flag(test, "test"):
                tested = service.test(path, settings, progress=telling)
                lr, sr, notices = tested.known.lr, tested.sr, tested.known.notices
                facts = asdict(tested.scores)
            else:
                enlarged = service.enlarge(path, settings, progress=telling)
                lr, sr, notices = enlarged.lr, enlarged.picture, enlarged.notices
                names = ("consistency", "seconds", "megapixels_per_second")
                facts = {name: getattr(enlarged, name) for name in names}
            folder = files.new()
            made = [folder / f"{path.stem}_{name}.png" for name in ("bicubic", "sr")]
            with _deleted_on_error(files, folder):
                _write_bicubic(lr, sr, made[0])
                write_picture(sr, made[1])
            notices = tuple(dict.fromkeys((*notices, *cannot_keep(sr, made[1]))))
            sizes = {"input_size": _size(lr), "output_size": _size(sr), "notices": list(notices)}
            bicubic, ours = (gr.FileData(path=str(path), orig_name=path.name) for path in made)
            return bicubic, ours, {**sizes, **facts}

    for function in (upscale, compare):
        gr.api(  # type: ignore[attr-defined]  # gradio does not list it
            function,
            api_description=function.__doc__,
            concurrency_id="network",
            concurrency_limit=1,
        )


async def _own_file(root: Path, url: str, cache_dir: str) -> str:
    """An upload by its address, such as language models hand it in; in the place of gradio's download.

    gradio would fetch any address: whoever asks could make this machine fetch anything, of any size.
    """
    path = Path(unquote(urlsplit(url).path).partition("/file=")[2]).resolve()
    if not _is_upload(path, root):
        raise gr.Error(
            "expected an upload, got another address: nothing is fetched here", print_exception=False
        )
    return str(path)


def _is_upload(path: Path, root: Path) -> bool:
    """Whether it is a file of a folder inside the root, as uploads are."""
    return path.parent.parent == root and path.is_file()


@contextmanager
def _said_to_the_client() -> Iterator[None]:
    """Faults of what a client sent, as the message it gets."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise gr.Error(str(error), print_exception=False) from error


@contextmanager
def _deleted_on_error(files: ShortLived, folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        files.delete(folder)
        raise


@contextmanager
def _uploaded(file: Any, files: ShortLived) -> Iterator[Path]:
    """The path of an upload. gradio checks only values that are marked as files; others may hold any path."""
    name = file.get("path") if isinstance(file, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"file must be an uploaded file, got {type(file).__name__}")
    path = Path(name).resolve()
    if not _is_upload(path, files.root):
        raise ValueError("file must be one that was uploaded and is still here, got another path")
    files.use(path.parent)
    yield path
    files.use(path.parent)


def _settings(model: Any, fidelity: Any, scale: Any, width: Any, consistency: Any) -> Settings:
    """Settings of JSON values, which may be of any type."""
    if not isinstance(model, str):
        raise ValueError(f"model must be a name, got {type(model).__name__}")
    if isinstance(width, float) and width.is_integer():
        width = int(width)  # JSON has one kind of numbers
    return Settings(
        model=model,
        fidelity=_number(fidelity, "fidelity", int, float),
        scale=_number(scale, "scale", int, float),
        width=_number(width, "width", int),
        consistency=_flag(consistency, "consistency"),
    )


def _number(value: Any, name: str, *kinds: type) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
        what = "a whole number" if kinds == (int,) else "a number"
        raise ValueError(f"{name} must be {what} or null, got {value!r:.40}")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r:.40}")
    return value


def _telling() -> Callable[[int, int], None]:
    """What tells the client of the tiles done."""
    progress = gr.Progress()  # finds by itself which event it belongs to

    def tell(done: int, total: int) -> None:
        progress((done, total), desc="Enlarging", unit="tiles")

    return tell


def _write_bicubic(lr: Picture, sr: Picture, path: Path) -> None:
    """`lr` resized to the size of `sr`, some rows at a time."""
    height, width = lr.pixels.shape[:2]
    shape = (*sr.pixels.shape[:2], lr.pixels.shape[2])
    strips = (lr.pixels[row : row + _ROWS] for row in range(0, height, _ROWS))
    write_strips(lr.described_as(*shape[:2]), shape, resize_rows(strips, (height, width), shape[:2]), path)


def _size(picture: Picture) -> list[int]:
    height, width = picture.pixels.shape[:2]
    return [width, height]
