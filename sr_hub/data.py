"""Training crops from any folder of images, drawn from (seed, phase, step) alone."""

import logging
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, permutations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from sr_hub.degradations import MARGIN, Degradation, moved
from sr_hub.images import load_plugins
from sr_hub.metrics import round_to_8_bits
from sr_hub.pixels import join_alpha, pixels_from_pil, round_to

logger = logging.getLogger(__name__)

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
    | {".jp2", ".heic", ".heif", ".jxl", ".tga", ".mpo", ".jfif"}
)


def list_images(folder: Path, leave_out: Sequence[Path] = ()) -> list[Path]:
    """All files below ``folder`` with an image's suffix, sorted by path, hidden ones left out.

    Links to folders are followed, but a folder is read once only: links may lead in circles.

    Args:
        folder: A folder tree.
        leave_out: Files and folders, inside or not, that do not belong to it.

    Raises:
        FileNotFoundError: If ``folder`` is not a folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of training images at {folder}: name one with --data FOLDER")
    apart = {path.resolve() for path in leave_out}
    return sorted(
        path
        for place in _folders(folder, apart)
        for path in place.iterdir()
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
        and path.resolve() not in apart
    )


def _folders(top: Path, apart: set[Path]) -> Iterator[Path]:
    """``top`` and the folders below it, each once: those that lie there first, then those linked to."""
    seen: set[Path] = set()
    waiting = [top]
    while waiting:
        for place, names, _ in os.walk(waiting.pop(0)):
            folder, real = Path(place), Path(place).resolve()
            if real in seen or real in apart:
                names.clear()
                continue
            seen.add(real)
            names[:] = sorted(name for name in names if not name.startswith("."))
            links = [folder / name for name in names if (folder / name).is_symlink()]
            waiting += [link for link in links if link.resolve() not in real.parents]
            yield folder


def decode(path: Path) -> np.ndarray:
    """The image as ``(H, W, 3)`` uint8, upright by its EXIF orientation.

    Raises:
        OSError, ValueError: For a bad file.
    """
    load_plugins()
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):  # which Pillow clips at 255
                grey = round_to(np.uint8, join_alpha(pixels_from_pil(upright).pixels))
                return grey.repeat(3, axis=2)
            return np.asarray(upright.convert("RGB"))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on broken bytes
        raise ValueError(str(error)) from error


_ORDERS = list(permutations(range(3)))  # of the channels, the usual one first
SHIFTS = 8
"""``Batch.shift`` lies in [0, SHIFTS), HR pixels: all places on the strides of VGG19 and discriminator."""


@dataclass(frozen=True)
class Batch:
    """``hr`` ``(N, 3, scale*P, scale*P)`` and its ``lr`` ``(N, 3, P, P)``, both in [0, 1].

    ``shift`` ``(2,)``, whole numbers, is a random place, down and right in HR pixels, for networks that look
    at windows of ``sr``.
    """

    hr: Tensor
    lr: Tensor
    shift: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.int64))


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
        decoded: deque[Tensor] | None = deque()
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
        self.area_ends = list(accumulate(areas))
        self.buffer = None if decoded is None else _joined(decoded, device)
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
        except (OSError, ValueError) as error:
            self._skip(path, f"unreadable ({error})")
            return None

    def place(self, generator: torch.Generator, side: int) -> tuple[int, int, int]:
        """Index of a random image, and top and left of a random square of ``side`` in it."""
        draws = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        index = bisect_right(self.area_ends, int(draws[0] * self.area_ends[-1]))
        height, width = self.sizes[index]
        return index, int(draws[1] * (height - side + 1)), int(draws[2] * (width - side + 1))

    def _cut(self, places: list[tuple[int, int, int]], side: int) -> Tensor:
        """The squares at ``places``: ``(N, side, side, 3)`` uint8 on ``device``."""
        if self.buffer is None:
            assert self.pool is not None
            images = self.pool.map(lambda place: decode(self.paths[place[0]]), places)
            found = zip(places, images, strict=True)
            cut = [image[top : top + side, left : left + side] for (_, top, left), image in found]
            return torch.from_numpy(np.stack(cut)).to(self.device)
        widths = [self.sizes[index][1] for index, _, _ in places]
        starts = [
            3 * (self.area_ends[index] - self.sizes[index][0] * width + top * width + left)
            for (index, top, left), width in zip(places, widths, strict=True)
        ]
        return (stack if self.device.type == "cpu" else gather)(self.buffer, starts, widths, side)

    def batch(
        self,
        keys: list[int],
        turn: int,
        patch_size: int,
        scale: int,
        degradation: Degradation,
        shrink: float = 1.0,
        recolor: float = 0.0,
    ) -> Batch:
        """The crops that ``keys`` (a random seed each) stand for, degraded.

        Args:
            keys: One whole number per image; the same number gives the same pair always.
            turn: A whole number of 32 bits: which of the square's eight symmetries the batch is turned by,
                its shift, and how much it is shrunk.
            patch_size: Side of ``lr`` in LR pixels.
            scale: HR pixels per LR pixel.
            degradation: Makes ``lr`` of ``hr``.
            shrink: ``hr`` is shrunk by a factor between 1 and this, the same for the whole batch.
            recolor: Share of the crops whose colours are changed, see `recolored`.
        """
        side = (patch_size + 2 * MARGIN) * scale
        factor = 1 + (shrink - 1) * (turn >> 9) / 2**23
        read = int(side * factor)
        generators = [torch.Generator().manual_seed(key) for key in keys]
        squares = self._cut([self.place(generator, read) for generator in generators], read)
        if recolor:
            squares = recolored(squares, recolor, generators)
        hr = squares.permute(0, 3, 1, 2).float() / 255
        if read > side:
            hr = round_to_8_bits(F.interpolate(hr, (side, side), mode="bicubic", antialias=True))
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
            shift=moved(torch.tensor([turn // 8 % SHIFTS, turn // 64 % SHIFTS]), self.device),
        )


def _joined(pieces: deque[Tensor], device: torch.device) -> Tensor:
    """All of ``pieces`` in one, which let go of each as it is copied: both at once may not fit."""
    joined = torch.empty(sum(len(piece) for piece in pieces), dtype=torch.uint8, device=device)
    end = 0
    while pieces:
        piece = pieces.popleft()
        joined[end : end + len(piece)] = piece
        end += len(piece)
    return joined


def is_usable(path: Path, smallest: int) -> bool:
    """Whether the image can be read and has sides of at least ``smallest`` pixels."""
    try:
        return min(decode(path).shape[:2]) >= smallest
    except (OSError, ValueError):
        return False


def stack(buffer: Tensor, starts: list[int], widths: list[int], side: int) -> Tensor:
    """Squares of images that lie in ``buffer`` one after the other: ``(N, side, side, 3)``.

    Args:
        buffer: One-dimensional; images row by row, three samples a pixel.
        starts: Places of the squares' first samples.
        widths: Of their images, in pixels.
        side: In pixels.
    """
    shape, strides = (side, side, 3), [(3 * width, 3, 1) for width in widths]
    return torch.stack([buffer.as_strided(shape, *at) for at in zip(strides, starts, strict=True)])


def gather(buffer: Tensor, starts: list[int], widths: list[int], side: int) -> Tensor:
    """What `stack` gives, by one kernel: many small copies would keep a GPU waiting."""
    start, width = moved(torch.tensor([starts, widths]), buffer.device).view(2, -1, 1, 1).unbind()
    row = torch.arange(side, device=buffer.device).view(1, -1, 1)
    sample = torch.arange(3 * side, device=buffer.device)
    return buffer[start + 3 * width * row + sample].unflatten(2, (side, 3))


def recolored(squares: Tensor, share: float, generators: list[torch.Generator]) -> Tensor:
    """A share of the crops with red, green and blue exchanged at random, half of them negatives.

    A butterfly's contours are then learnt in the colours of foliage, too. Exchanged channels are one of the
    augmentations of Yoo, Ahn and Sohn (CVPR 2020, arXiv:2004.00448).

    Args:
        squares: ``(N, side, side, 3)``, uint8.
        share: From 0 to 1.
        generators: One for each square.
    """
    draws = [torch.rand(3, generator=generator, dtype=torch.float64).tolist() for generator in generators]
    orders = [_ORDERS[int(6 * order)] if chosen < share else _ORDERS[0] for chosen, order, _ in draws]
    negatives = [255 if chosen < share and negative < 0.5 else 0 for chosen, _, negative in draws]
    channels = moved(torch.tensor(orders), squares.device).view(-1, 1, 1, 3)
    mask = moved(torch.tensor(negatives, dtype=torch.uint8), squares.device).view(-1, 1, 1, 1)
    return squares.gather(3, channels.expand(squares.shape)) ^ mask


def smallest_side(patch_size: int, scale: int, shrink: float = 1.0) -> int:
    """HR pixels that an image needs for ``Crops.batch`` with ``patch_size`` and ``shrink``."""
    return int((patch_size + 2 * MARGIN) * scale * shrink)


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
