"""Whether inputs and results fit into memory, told by their sizes before any work."""

from pathlib import Path

from sr_hub.deep_color import raw_mode
from sr_hub.encoding import check_fits
from sr_hub.images import ImageError, open_image

PIXEL_BYTES, _DEEP_PIXEL_BYTES = 12, 28
"""Bytes that reading takes for each pixel, at its peak, with 8 and with 16 bits per sample; measured."""

FRAME_BYTES = 4
"""For each pixel of each frame that is read."""

WRITTEN_FRAME_BYTES = 8
"""For each pixel of each frame that is written."""

_LEAST_MEMORY = 2**24  # bytes that reading may take in any case


def check_input(path: Path, max_pixels: int, memory: int) -> None:
    """Refuse an image file whose samples would not fit into `memory` bytes while they are read.

    Raises:
        ImageError: If they would not, or as `sr_hub.images.open_image`.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        each = _DEEP_PIXEL_BYTES if ";16" in (raw_mode(image) or "") else PIXEL_BYTES
        needed, size = each * image.width * image.height, f"{image.width}x{image.height} pixels"
    if needed > max(memory, _LEAST_MEMORY):
        raise ImageError(
            f"{path}: {size} need {needed / 2**30:.2f} GiB of memory to be read, expected at most "
            f"{memory / 2**30:.2f}; raise --max-memory"
        )


def check_frames(path: Path, max_pixels: int, memory: int) -> int:
    """The number of frames of an animation, which is refused where they would not fit into `memory` bytes.

    Raises:
        ImageError: If they would not, or as `sr_hub.images.open_image`.
    """
    with open_image(path, max_pixels=max_pixels) as image:
        frames, size = int(getattr(image, "n_frames", 1)), f"{image.width}x{image.height}"
        needed = FRAME_BYTES * frames * image.width * image.height
    if needed > max(memory, _LEAST_MEMORY):
        raise ImageError(
            f"{path}: {frames} frames of {size} need {needed / 2**30:.2f} GiB of memory to be read, expected "
            f"at most {memory / 2**30:.2f}; raise --max-memory"
        )
    return frames


def check_result(path: Path, size: tuple[int, int], frames: int, memory: int) -> None:
    """Refuse a result that its format cannot hold, or whose encoder would not fit into `memory` bytes.

    Args:
        path: Of the result.
        size: ``(height, width)``.
        frames: 1 for a still picture.
        memory: In bytes.

    Raises:
        ImageError: In these cases.
    """
    height, width = size
    known = check_fits(path, height, width)
    needed = (known.memory if frames == 1 else WRITTEN_FRAME_BYTES * frames) * height * width
    if needed > memory:
        what = f"{known.name} needs" if frames == 1 else f"{frames} frames need"
        raise ImageError(
            f"{path}: {what} {needed / 2**30:.2f} GiB of memory for {width}x{height}, expected at most "
            f"{memory / 2**30:.2f}; choose PNG or TIFF or raise --max-memory"
        )
