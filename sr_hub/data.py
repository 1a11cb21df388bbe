"""Training crops from any folder of images, drawn from (seed, phase, step) alone."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sr_hub.degradations import MARGIN, Degradation

logger = logging.getLogger(__name__)

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
    | {".jp2", ".heic", ".heif", ".jxl"}
)


def list_images(folder: Path) -> list[Path]:
    """All files below ``folder`` with an image's suffix, sorted by path, hidden ones left out.

    Raises:
        FileNotFoundError: If ``folder`` is not a folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of training images at {folder}: name one with --data FOLDER")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def decode(path: Path) -> np.ndarray:
    """The image as ``(H, W, 3)`` uint8, upright by its EXIF orientation.

    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: What Pillow raises for a bad file.
    """
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


SHIFTS = 8
"""``Batch.shift`` lies in [0, SHIFTS), HR pixels: all places on the strides of VGG19 and discriminator."""


@dataclass(frozen=True)
class Batch:
    """``hr`` ``(N, 3, scale*P, scale*P)`` and its ``lr`` ``(N, 3, P, P)``, both in [0, 1].

    ``shift`` is a random place, down and right in HR pixels, for networks that look at windows of ``sr``.
    """

    hr: Tensor
    lr: Tensor
    shift: tuple[int, int] = (0, 0)


class Crops:
    """Draws training batches; every image of the set is as likely as its number of pixels.

    Images are decoded once into one uint8 buffer on ``device`` when they fit into ``memory_limit``, and
    decoded anew for each crop (by threads, one batch ahead) when they do not.

    Args:
        paths: Image files. Unreadable ones and ones smaller than ``smallest`` are reported and skipped.
        smallest: Least height and width in HR pixels.
        memory_limit: Bytes of decoded images to keep.
        device: Where batches are made.

    Raises:
        ValueError: If no usable image is left.
    """

    def __init__(self, paths: list[Path], smallest: int, memory_limit: float, device: torch.device) -> None:
        self.device = device
        self.skipped: list[tuple[Path, str]] = []
        self.paths: list[Path] = []
        self.sizes: list[tuple[int, int]] = []
        decoded: list[Tensor] | None = []
        used = 0
        with ThreadPoolExecutor() as pool:
            for path, image in zip(paths, _ahead(pool, self._try_decode, paths), strict=True):
                if image is None:
                    continue
                if min(image.shape[:2]) < smallest:
                    self._skip(path, f"{image.shape[1]}x{image.shape[0]} is smaller than {smallest} pixels")
                    continue
                self.paths.append(path)
                self.sizes.append(image.shape[:2])
                used += image.nbytes
                if used > memory_limit:
                    decoded = None
                if decoded is not None:
                    decoded.append(torch.from_numpy(image.reshape(-1)))
        if not self.paths:
            raise ValueError(
                f"no usable training image: {len(paths)} files found, {len(self.skipped)} skipped "
                f"(unreadable or smaller than {smallest} pixels)"
            )
        areas = [height * width for height, width in self.sizes]
        self.area_ends = torch.tensor(list(accumulate(areas)))
        self.buffer = torch.cat(decoded).to(device) if decoded is not None else None
        self.pool = ThreadPoolExecutor() if self.buffer is None else None
        logger.info(
            "%d images, %.1f megapixels, %s; %d skipped",
            len(self.paths), sum(areas) / 1e6,
            f"in memory on {device}" if self.buffer is not None else "streamed from disk", len(self.skipped),
        )  # fmt: skip

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append((path, reason))
        logger.warning("skipped %s: %s", path, reason)

    def _try_decode(self, path: Path) -> np.ndarray | None:
        try:
            return np.array(decode(path))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            self._skip(path, f"unreadable ({error})")
            return None

    def crop(self, generator: torch.Generator, side: int) -> Tensor:
        """One random square ``(side, side, 3)`` uint8."""
        position = int(torch.randint(int(self.area_ends[-1]), (), generator=generator))
        index = int(torch.searchsorted(self.area_ends, position, right=True))
        height, width = self.sizes[index]
        top = int(torch.randint(height - side + 1, (), generator=generator))
        left = int(torch.randint(width - side + 1, (), generator=generator))
        if self.buffer is None:
            image = torch.from_numpy(np.array(decode(self.paths[index])))
        else:
            end = 3 * int(self.area_ends[index])
            image = self.buffer[end - 3 * height * width : end].view(height, width, 3)
        return image[top : top + side, left : left + side]

    def batch(
        self, keys: list[int], turn: int, patch_size: int, scale: int, degradation: Degradation
    ) -> Batch:
        """The crops that ``keys`` (a random seed each) stand for, degraded.

        Args:
            keys: One whole number per image; the same number gives the same pair always.
            turn: A whole number of 9 bits or more: which of the square's eight symmetries the batch is turned
                by, and its shift.
            patch_size: Side of ``lr`` in LR pixels.
            scale: HR pixels per LR pixel.
            degradation: Makes ``lr`` of ``hr``.
        """
        side = (patch_size + 2 * MARGIN) * scale
        generators = [torch.Generator().manual_seed(key) for key in keys]
        crops = (self.pool.map if self.pool else map)(lambda g: self.crop(g, side), generators)
        hr = torch.stack(list(crops)).to(self.device).permute(0, 3, 1, 2).float() / 255
        if turn & 1:
            hr = hr.flip(2)
        if turn & 2:
            hr = hr.flip(3)
        if turn & 4:
            hr = hr.transpose(2, 3)
        hr = hr.contiguous(memory_format=torch.channels_last)
        lr = degradation(hr, scale, generators)[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        edge = MARGIN * scale
        hr = hr[..., edge:-edge, edge:-edge]
        return Batch(
            hr.contiguous(memory_format=torch.channels_last),
            lr.contiguous(memory_format=torch.channels_last),
            shift=(turn // 8 % SHIFTS, turn // 64 % SHIFTS),
        )


def smallest_side(patch_size: int, scale: int) -> int:
    """HR pixels that an image needs for ``Crops.batch`` with ``patch_size``."""
    return (patch_size + 2 * MARGIN) * scale


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[Path], np.ndarray | None],
    items: list[Path],
    ahead: int = 16,
) -> Iterator[np.ndarray | None]:
    """``map`` by threads, at most ``ahead`` results waiting."""
    waiting = []
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()
