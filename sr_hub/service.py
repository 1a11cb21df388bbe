"""What the page does with pictures and models, for many people at once; knows nothing of a page."""

import math
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sr_hub import settings as work
from sr_hub.allocator import give_back
from sr_hub.consistency import Consistent, given_back
from sr_hub.encoding import write_picture
from sr_hub.enlarging import Enlarger, Loaded, Made, Outcome
from sr_hub.families import Families, ModelFacts
from sr_hub.folders import Job
from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError, Picture, open_image, read_picture
from sr_hub.inference import Progress, choose_dtype, upscale_picture
from sr_hub.known_picture import KnownPicture, KnownScores, score, shrink
from sr_hub.lent_gpu import is_lent, make_on_lent_gpu
from sr_hub.pixels import round_to
from sr_hub.pretrained import DEFAULT_MODEL
from sr_hub.row_resize import resize_rows

CONSISTENCY_STEPS = 4
"""Steps of back-projection, where a result shall give back its input."""

_ROWS = 256  # of a picture, resized at once
_SPARE_DISK = 2**30  # bytes that stay free for everybody else
_DTYPE_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_READING = threading.Lock()  # Pillow's limit on pixels is one for the whole process

Stop = Callable[[], bool]


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """The work ended because it was asked to."""


@dataclass(frozen=True)
class Settings:
    """What a result is asked to be.

    Attributes:
        model: Bundled name, local folder or Hub repository.
        fidelity: From 0 to 1, for a model with two ends; None for the model's own.
        scale: Output pixels per input pixel, each way; None for the model's own.
        width: Of the result in pixels, in the place of `scale`.
        consistency: Whether the result, shrunk again, shall give back the input.

    Raises:
        ValueError: If a number is out of its range, or both scale and width are given.
    """

    model: str = DEFAULT_MODEL
    fidelity: float | None = None
    scale: float | None = None
    width: int | None = None
    consistency: bool = False

    def __post_init__(self) -> None:
        if self.fidelity is not None and not 0 <= self.fidelity <= 1:
            raise ValueError(f"fidelity must lie in [0, 1], got {self.fidelity}")
        if self.scale is not None and not 0 < self.scale <= sys.float_info.max:
            raise ValueError(f"scale must be a number above 0, got {self.scale!r:.40}")
        if self.width is not None and self.width < 1:
            raise ValueError(f"width must be at least 1 pixel, got {self.width}")
        if self.scale is not None and self.width is not None:
            raise ValueError("scale cannot be asked for together with width")

    @property
    def work(self) -> work.Settings:
        """The same in the words of `sr-hub upscale`."""
        return work.Settings(
            scale=None if self.scale is None else float(self.scale),
            width=self.width,
            consistency=CONSISTENCY_STEPS if self.consistency else 0,
        )


@dataclass(frozen=True)
class Limits:
    """What a picture may be: megabytes (10^6 bytes) of its file, megapixels of it and of its result."""

    megabytes: float = 100
    megapixels: float = 64
    output_megapixels: float = 256


@dataclass(frozen=True, eq=False)
class Enlarged:
    """A result that is held in memory.

    Attributes:
        lr: The input.
        picture: The result, metadata and provenance included: for `sr_hub.encoding.write_picture`.
        seconds: The network took.
        facts: Sizes, time, speed, device and precision, in one line.
        notices: What could not be kept as it was, in words for the user.
        consistency: Share, from 0 to 1, of the input's samples that the result, shrunk again by bicubic,
            gives back within 1/255, as ``sr-hub upscale --consistency`` tells it; None where the result is
            not a whole number of times as large.
    """

    lr: Picture
    picture: Picture
    seconds: float
    facts: str
    notices: tuple[str, ...]
    consistency: float | None

    @property
    def megapixels_per_second(self) -> float:
        """Of the result."""
        return _megapixels(self.picture.pixels.shape) / self.seconds


@dataclass(frozen=True, eq=False)
class Tested:
    """A picture shrunk, restored and compared with itself."""

    known: KnownPicture
    sr: Picture
    scores: KnownScores


class Service:
    """Enlarges pictures with any model. One for a process; its methods may run in many threads at once.

    One picture at a time goes through a network, so that memory is that of one; the others wait for it. A
    model is read once and kept, the last few of them, for as long as the process runs.

    Args:
        limits: Of the pictures that are taken.
        device: Where networks run. Default: the first CUDA GPU, else the CPU; on a Space with ZeroGPU,
            the GPU that is lent for each picture.
        models: Names that may be asked for; None for any, which lets whoever asks read model folders of this
            machine and fetch repositories onto its disk.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        device: torch.device | str | None = None,
        models: Collection[str] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._lent = device is None and is_lent()
        found = "cuda" if torch.cuda.is_available() and not self._lent else "cpu"
        self.device = torch.device(device or found)
        self._networks = threading.Lock()
        self._families = Families(self.device, models)

    def facts(self, model: str) -> ModelFacts:
        """What is known of a model, which is read for it.

        Raises:
            OSError, ValueError: If it may not be asked for, cannot be had or is broken.
        """
        return self._families.facts(model)

    def generator(self, model: str, fidelity: float | None = None) -> SRGenerator:
        """The model in eval mode on the device; shared, so nobody may change it.

        Raises:
            OSError, ValueError: As `facts`; and if `fidelity` is asked of a model with one end.
        """
        return self._families.generator(model, fidelity)

    def check(self, path: str | os.PathLike[str], settings: Settings | None = None) -> None:
        """Looks at a file's size and its header, and decodes nothing.

        Args:
            path: The picture.
            settings: What is asked of it, for the limit of the result; None leaves that out.

        Raises:
            ValueError: If it is no picture or above a limit; says the limit and what to do.
            OSError: As `facts`.
        """
        path = Path(path)
        try:
            height, width = self._header(path)
        except ImageError as error:
            raise _without_folders(error, path) from error
        # What a width makes of the height depends on the orientation, which the header may not tell.
        if settings is not None and settings.width is None:
            self._check_result(path, (height, width), settings)

    def enlarge(
        self,
        path: str | os.PathLike[str],
        settings: Settings,
        *,
        progress: Progress | None = None,
        stopped: Stop | None = None,
    ) -> Enlarged:
        """The picture at `path` enlarged, with the samples and metadata that ``sr-hub upscale`` writes.

        Args:
            path: An image file.
            settings: What is asked of it.
            progress: Called with the tiles done and the number of tiles.
            stopped: Asked after each tile whether to stop.

        Raises:
            ValueError, OSError: As `check` and `generator`; and if the file is broken.
            Stopped: If `stopped` said so.
        """
        path = Path(path)
        # Never written: the name stands for a format that holds all samples.
        job = Job(path.name, path, path.with_name(f"{path.stem}.png"))
        enlarger = self._enlarger(path, settings, stopped)
        try:
            loaded = self._read(enlarger, job, settings)
            if loaded.picture.pixels.dtype == np.float32:
                job = replace(job, target=job.target.with_suffix(".tif"))
            with self._one_network():
                made = self._make(enlarger, job, loaded, _watched(progress, stopped), hold=True)
        except ImageError as error:
            raise _without_folders(error, path) from error
        _stop_if(stopped)
        assert made is not None and made.picture is not None
        lr, sr, outcome = loaded.picture, made.picture, made.outcome
        facts = self._describe(lr, sr, outcome.seconds)
        share = given_back(lr.pixels, sr.pixels)
        return Enlarged(lr, sr, outcome.seconds, facts, outcome.notices, share)

    def enlarge_file(
        self,
        path: str | os.PathLike[str],
        target: str | os.PathLike[str],
        settings: Settings,
        *,
        progress: Progress | None = None,
        stopped: Stop | None = None,
    ) -> Outcome:
        """Writes to `target`, byte by byte, what ``sr-hub upscale`` writes.

        Large results are never held as a whole. The arguments and errors are those of `enlarge`.

        Raises:
            ImageError: If the disk of `target` has no room, or its format cannot hold the result.
        """
        path, target = Path(path), Path(target)
        job = Job(path.name, path, target)
        enlarger = self._enlarger(path, settings, stopped)
        try:
            loaded = self._read(enlarger, job, settings)
            pixels = loaded.picture.pixels
            height, width, channels = pixels.shape
            size = settings.work.target_size(height, width, self.facts(settings.model).scale)
            _check_room(target, math.prod(size) * channels * pixels.itemsize)
            with self._one_network():
                made = self._make(enlarger, job, loaded, _watched(progress, stopped))
            del loaded, pixels
            _stop_if(stopped)
            return enlarger.write(job, made)
        except ImageError as error:
            raise _without_folders(error, path, target) from error

    def test(
        self,
        path: str | os.PathLike[str],
        settings: Settings,
        *,
        progress: Progress | None = None,
        stopped: Stop | None = None,
    ) -> Tested:
        """The picture at `path`, shrunk by the model's scale, restored and scored beside bicubic.

        The arguments and errors are those of `enlarge`; of `settings`, model, fidelity and consistency count.

        Raises:
            ImageError: If the picture is too small for it.
        """
        path = Path(path)
        self.check(path)
        generator: torch.nn.Module = self.generator(settings.model, settings.fidelity)
        if settings.consistency:
            generator = Consistent(generator, CONSISTENCY_STEPS)
        try:
            with _READING:
                known = shrink(read_picture(path), int(generator.scale))  # type: ignore[arg-type]  # an int
        except ImageError as error:
            raise _without_folders(error, path) from error
        _stop_if(stopped)
        with self._one_network():
            sr = upscale_picture(generator, known.lr, progress=_watched(progress, stopped))
        return Tested(known, sr, score(known, sr))

    def write_thumbnail(self, path: Path, target: Path, side: int) -> None:
        """Writes a small copy of a picture, 8 bits with its colour profile, that fits into a square.

        Raises:
            ImageError: If `path` is no picture or `target` cannot be written.
        """
        with _READING:
            picture = read_picture(path, max_pixels=2**62)
        height, width = picture.pixels.shape[:2]
        share = min(1.0, side / max(height, width))
        size = (max(1, round(height * share)), max(1, round(width * share)))
        strips = (picture.pixels[row : row + _ROWS] for row in range(0, height, _ROWS))
        small = np.concatenate(list(resize_rows(strips, (height, width), size)))
        write_picture(Picture(round_to(np.uint8, small), icc_profile=picture.icc_profile), target)

    @contextmanager
    def _one_network(self) -> Iterator[None]:
        """Waits for its turn; what the picture before left in memory is given back first."""
        with self._networks:
            give_back()
            try:
                yield
            finally:
                give_back()

    def _header(self, path: Path) -> tuple[int, int]:
        """Height and width of a picture that is below the limits of pictures, as its header has them."""
        size = path.stat().st_size / 1e6 if path.is_file() else 0
        if size > self.limits.megabytes:
            raise ImageError(
                f"{path}: the file has {size:.1f} megabytes, at most {self.limits.megabytes:g} are taken "
                "here: save it smaller, or use sr-hub upscale on your own computer"
            )
        # Without Pillow's limit on the pixels, which does not say what to do; nothing is decoded yet.
        with _READING, open_image(path, max_pixels=2**62) as image:
            width, height = image.size
        if _megapixels((height, width)) > self.limits.megapixels:
            raise ImageError(
                f"{path}: the picture has {_megapixels((height, width)):.1f} megapixels, at most "
                f"{self.limits.megapixels:g} are taken here: shrink or crop it, or use sr-hub upscale on "
                "your own computer"
            )
        return height, width

    def _check_result(self, path: Path, size: tuple[int, ...], settings: Settings) -> None:
        height, width = settings.work.target_size(size[0], size[1], self.facts(settings.model).scale)
        if _megapixels((height, width)) > self.limits.output_megapixels:
            raise ImageError(
                f"{path.name}: the result would have {_megapixels((height, width)):.1f} megapixels, at most "
                f"{self.limits.output_megapixels:g} are made here: choose a smaller scale or width"
            )

    def _enlarger(self, path: Path, settings: Settings, stopped: Stop | None) -> Enlarger:
        _stop_if(stopped)
        self.check(path, settings)
        generator = self.generator(settings.model, settings.fidelity)
        model = self._families.model(settings.model, settings.fidelity)
        limits = work.Limits(max_pixels=round(self.limits.megapixels * 1e6))
        return Enlarger(generator, settings.work, model, limits)

    def _make(
        self, enlarger: Enlarger, job: Job, loaded: Loaded, progress: Progress, *, hold: bool = False
    ) -> Made | None:
        if self._lent and loaded.rows is None:
            return make_on_lent_gpu(enlarger, job, loaded, progress, hold=hold)
        return enlarger.make(job, loaded, progress, hold=hold)

    def _read(self, enlarger: Enlarger, job: Job, settings: Settings) -> Loaded:
        with _READING:
            loaded = enlarger.read(job)
        assert loaded is not None  # a job without a record is never done already
        self._check_result(job.source, loaded.picture.pixels.shape, settings)
        return loaded

    def _describe(self, lr: Picture, sr: Picture, seconds: float) -> str:
        sizes = [f"{picture.pixels.shape[1]}×{picture.pixels.shape[0]}" for picture in (lr, sr)]
        speed = _megapixels(sr.pixels.shape) / seconds
        took = f"{seconds:.2f} s · {f'{speed:.0f}' if speed >= 10 else f'{speed:.2g}'} megapixels/s"
        if self._lent:
            return f"{sizes[0]} → {sizes[1]} pixels · {took} · lent GPU"
        device = self.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
        precision = _DTYPE_NAMES[choose_dtype(device, "auto", eight_bit=lr.pixels.dtype == np.uint8)]
        return f"{sizes[0]} → {sizes[1]} pixels · {took} · {name}, {precision}"


def _check_room(target: Path, needed: int) -> None:
    if shutil.disk_usage(target.parent).free < needed + _SPARE_DISK:
        raise ImageError(
            f"{target}: the result needs up to {needed / 1e6:.0f} megabytes of disk, of which too little is "
            "left here: try again later, or choose a smaller scale"
        )


def _stop_if(stopped: Stop | None) -> None:
    if stopped is not None and stopped():
        raise Stopped


def _watched(progress: Progress | None, stopped: Stop | None) -> Progress:
    """`progress`, which raises `Stopped` when `stopped` says so."""

    def report(done: int, total: int) -> None:
        _stop_if(stopped)
        if progress is not None:
            progress(done, total)

    return report


def _without_folders(error: ImageError, *paths: Path) -> ImageError:
    """The same error without the machine's folders, which are nobody's business."""
    text = str(error)
    for path in paths:
        text = text.replace(f"{path.parent}{os.sep}", "")
    return ImageError(text)


def _megapixels(shape: tuple[int, ...]) -> float:
    return shape[0] * shape[1] / 1e6
