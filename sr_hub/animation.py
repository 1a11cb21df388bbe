"""Animated pictures, frame by frame."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from sr_hub.encoding import check_fits
from sr_hub.exif import turn_upright
from sr_hub.images import (
    MAX_PIXELS,
    ImageError,
    Picture,
    exif_of,
    metadata_of,
    open_image,
    reason_of,
    to_pil,
)
from sr_hub.pixels import pixels_from_pil, round_to
from sr_hub.whole_files import whole_file

ANIMATED = ("GIF", "WEBP", "PNG")
"""Pillow's names of the formats that all frames are written in."""

_OPTIONS = {"GIF": {"disposal": 2, "optimize": False}, "WEBP": {"quality": 95}, "PNG": {"disposal": 1}}


@dataclass(frozen=True)
class Animation:
    """Frames and when they are shown.

    Attributes:
        frames: ``(H, W, 4)`` uint8 each, complete: nothing shines through from the frame before.
        durations: Milliseconds of each; whole ones in GIF and WebP.
        loops: Times it is shown, 0 for ever.
        poster: Whether the first frame is none of the animation: APNG has a picture for programs that show
            stills only.
    """

    frames: list[np.ndarray]
    durations: list[float]
    loops: int
    poster: bool = False


def is_animated(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> bool:
    """Whether the picture has several frames.

    Raises:
        ImageError: If it is no picture, or each of its frames has too many pixels.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        return bool(getattr(image, "is_animated", False)) and image.format in ANIMATED


def read_animation(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Animation:
    """All frames of a GIF, WebP or APNG file.

    Args:
        path: The file.
        max_pixels: Of all frames together.

    Raises:
        ImageError: If a frame cannot be read, or there are too many.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        count = int(getattr(image, "n_frames", 1))
        if count * image.width * image.height > max_pixels:
            size = f"{count} of {image.width}x{image.height}"
            raise ImageError(f"expected at most {max_pixels:,} pixels in all frames, got {size}")
        frames, durations = [], []
        _, orientation, _ = exif_of(image)
        for index in range(count):
            image.seek(index)
            frame = np.asarray(Image.fromarray(_samples(image)).convert("RGBA"))
            frames.append(np.ascontiguousarray(turn_upright(frame, orientation)))
            durations.append(float(image.info.get("duration", 0)))
        poster = count > 1 and bool(getattr(image, "default_image", False))
        return Animation(frames, durations, _loops(image), poster)


def write_animation(picture: Picture, animation: Animation, path: str | os.PathLike[str]) -> None:
    """Write all frames, whole or not at all.

    Args:
        picture: What is said of the whole; its samples are not looked at.
        animation: The frames.
        path: Its suffix chooses GIF, WebP or PNG.

    Raises:
        ImageError: If the format holds no frames or not this size, or the file cannot be written.
    """
    path = Path(path)
    known = check_fits(path, *animation.frames[0].shape[:2])
    if known.name not in ANIMATED:
        raise ImageError(f"{path}: {known.name} holds one frame, expected GIF, WEBP or PNG for an animation")
    metadata = {key: value for key, value in metadata_of(picture).items() if value}
    if known.name == "PNG" and picture.xmp:
        metadata["pnginfo"] = PngImagePlugin.PngInfo()
        metadata["pnginfo"].add_itxt("XML:com.adobe.xmp", picture.xmp.decode("utf-8", "replace"))
    shown = slice(1 if animation.poster else 0, None)
    still = animation.poster and known.name == "PNG"
    kept = animation.frames if still else animation.frames[shown]
    durations = animation.durations[shown]
    if known.name != "PNG":
        durations = [round(duration) for duration in durations]
    first, *rest = (to_pil(Picture(frame)) for frame in kept)
    try:
        with whole_file(path) as file:
            first.save(
                file,
                format=known.name,
                save_all=True,
                append_images=rest,
                duration=durations,
                **({"default_image": True} if still else {}),
                **_loop_option(animation.loops, known.name),
                **metadata,
                **_OPTIONS[known.name],
            )
    except Exception as error:  # encoders raise nearly anything
        raise ImageError(f"{path}: cannot be written: {reason_of(error)}") from error


def _loops(image: Image.Image) -> int:
    """Times shown, 0 for ever. GIF says how often it is shown again, or nothing."""
    loop = image.info.get("loop")
    if loop is None:
        return 1
    return int(loop) + 1 if image.format == "GIF" and loop else int(loop)


def _loop_option(loops: int, name: str) -> dict[str, int]:
    if name != "GIF":
        return {"loop": loops}
    return {} if loops == 1 else {"loop": max(0, loops - 1)}


def _samples(image: Image.Image) -> np.ndarray:
    pixels = round_to(np.uint8, pixels_from_pil(image).pixels)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
