"""One picture file to another, with all settings; made for `sr_hub.pipeline` and for workers of a cluster."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image

from sr_hub.animation import ANIMATED, Animation, is_animated, read_animation, write_animation
from sr_hub.consistency import Consistent, given_back
from sr_hub.encoding import cannot_keep, too_large_for, write_picture, write_strips
from sr_hub.ensemble import DihedralEnsemble
from sr_hub.fitting import (
    FRAME_BYTES,
    PIXEL_BYTES,
    WRITTEN_FRAME_BYTES,
    check_frames,
    check_input,
    check_result,
)
from sr_hub.folders import Job, fingerprint, is_done, note_done
from sr_hub.images import FIRST_FRAME_ONLY, MAX_PIXELS, ImageError, Picture, read_picture
from sr_hub.inference import Progress
from sr_hub.memory import is_memory_error
from sr_hub.provenance import add_provenance, hash_weights, program_name
from sr_hub.row_reader import Rows, open_rows
from sr_hub.row_resize import resize_rows
from sr_hub.settings import Limits, Model, Settings
from sr_hub.streaming import tile_size_for, upscale_strips
from sr_hub.stripping import strip_metadata

_LARGEST_STRIP = 2**28
_STREAMED_PIXELS = 2**24  # from which on an input is not held, where its rows can be read one after the other
_CHECKED_PIXELS = 2**20  # of the input; larger ones are not checked for consistency, which takes their result


@dataclass(frozen=True)
class Loaded:
    """A picture that was read, the hash of its file, and its frames, if all are wanted.

    With `rows` the samples are still in the file, and those of `picture` are none.
    """

    picture: Picture
    content: str
    animation: Animation | None = None
    rows: Rows | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        source_size: Width and height of the input; None if the result was there already.
        target_size: Width and height of the result; likewise.
        seconds: The network took, and, for a result that does not fit into memory, the encoder.
        consistent: Share of the input that the shrunk result gives back within 1/255; None if not asked for.
        notices: What could not be kept as it was, in words for the user.
    """

    source_size: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    seconds: float = 0.0
    consistent: float | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A result that is to be written; None where it was written while it was made."""

    picture: Picture | None
    content: str
    outcome: Outcome
    animation: Animation | None = None


class Enlarger:
    """Reads, enlarges and writes picture files with one generator.

    Args:
        generator: Such as `sr_hub.SRGenerator`.
        settings: What the results depend on.
        model: What the results say of the generator.
        limits: What the work may take.
        overwrite: Make results anew that are there already.
    """

    def __init__(
        self,
        generator: torch.nn.Module,
        settings: Settings | None = None,
        model: Model | None = None,
        limits: Limits | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self.settings = settings or Settings()
        self.limits = limits or Limits()
        self.overwrite = overwrite
        self._strip_bytes = min(_LARGEST_STRIP, max(1, self.limits.memory // 4))
        self._scale = int(generator.scale)  # type: ignore[arg-type]  # an int
        facts = {"weights_sha256": hash_weights(generator), "settings": asdict(self.settings)}
        self._facts = {"program": program_name(), **asdict(model or Model("unnamed")), **facts}
        self.key = json.dumps(facts, sort_keys=True)
        if self.settings.ensemble:
            generator = DihedralEnsemble(generator)
        if self.settings.consistency:
            generator = Consistent(generator, self.settings.consistency)
        self.generator = generator

    @property
    def memory_under_way(self) -> int:
        """Bytes for pictures that are read ahead and written behind."""
        return min(2 * _LARGEST_STRIP, self.limits.memory // 2)

    def weigh(self, job: Job) -> int:
        """Bytes that a picture takes while it is under way, about, by what its header says."""
        try:
            with Image.open(job.source) as image:
                height, width = self.settings.target_size(image.height, image.width, self._scale)
                source = PIXEL_BYTES * image.height * image.width
                many = self.settings.animated and image.format in ANIMATED
                frames = int(getattr(image, "n_frames", 1)) if many else 1
        except Image.DecompressionBombError:
            return self.memory_under_way  # alone
        except Exception:  # hostile bytes; reading it will tell
            return 0
        if frames > 1:
            return frames * (FRAME_BYTES * source // PIXEL_BYTES + WRITTEN_FRAME_BYTES * height * width)
        return source + min(12 * height * width, 3 * self._strip_bytes)

    def read(self, job: Job) -> Loaded | None:
        """The input, or None if its result is there already.

        Raises:
            ImageError: If it cannot be read.
        """
        try:
            content = fingerprint(job.source)
        except OSError as error:
            raise ImageError(f"{job.source}: cannot be read: {error.strerror}") from error
        if not self.overwrite and is_done(job, content, self.key):
            return None
        most = self.limits.max_pixels or MAX_PIXELS
        # Without its profile, a picture's colours are converted, which is done to the whole.
        least = _STREAMED_PIXELS if not self.settings.strip else most + 1
        if (opened := open_rows(job.source, least_pixels=least, max_pixels=most)) is not None:
            return Loaded(opened[0], content, rows=opened[1])
        check_input(job.source, most, self.limits.memory)
        picture = read_picture(job.source, max_pixels=most)
        if not (self.settings.animated and is_animated(job.source, max_pixels=most)):
            return Loaded(picture, content)
        height, width = picture.pixels.shape[:2]
        frames = check_frames(job.source, most, self.limits.memory)
        size = self.settings.target_size(height, width, self._scale)
        check_result(job.target, size, frames, self.limits.memory)
        said = tuple(notice for notice in picture.notices if notice != FIRST_FRAME_ONLY)
        if picture.pixels.dtype != np.uint8:
            said += ("frames are written with 8 bits per sample: 16-bit samples are rounded",)
        animation = read_animation(job.source, max_pixels=most)
        return Loaded(replace(picture, notices=said), content, animation)

    def make(
        self, job: Job, loaded: Loaded | None, progress: Progress | None = None, *, hold: bool = False
    ) -> Made | None:
        """The result, or None if there is nothing to do.

        What is too large to be held is written at once, unless it shall be held whatever it takes (`hold`).

        Raises:
            ImageError: If the result cannot be written to its place, or memory is short.
        """
        if loaded is None:
            return None
        started = time.perf_counter()
        source, notices = strip_metadata(loaded.picture) if self.settings.strip else (loaded.picture, ())
        height, width = source.pixels.shape[:2]
        size = self.settings.target_size(height, width, self._scale)
        frames = 1 if loaded.animation is None else len(loaded.animation.frames)
        check_result(job.target, size, frames, self.limits.memory)
        said = [*source.notices, *notices, *cannot_keep(source.described_as(*size), job.target)]
        picture = self._described(source, size, loaded.content, job, said)
        shape = (*size, source.pixels.shape[2])
        try:
            consistent = None
            if loaded.animation is not None:
                plain = self._stripped(loaded) if self.settings.strip else loaded.animation
                animation = self._animation(plain, size, progress, said)
                return Made(
                    picture, loaded.content, self._outcome(started, source, size, None, said), animation
                )
            samples = source.pixels if loaded.rows is None else loaded.rows
            strips = self._strips(samples, size, progress, said)
            large = np.prod(shape, dtype=np.int64) * source.pixels.itemsize > self._strip_bytes
            if large and not hold:
                job.target.parent.mkdir(parents=True, exist_ok=True)
                write_strips(picture, shape, strips, job.target)
                made = None
            else:
                made = replace(picture, pixels=_joined(strips, shape))
                consistent = self._share(source.pixels, made.pixels)
        except Exception as error:
            if not is_memory_error(error):
                raise
            raise ImageError(f"{job.source}: not enough memory: {str(error).splitlines()[0]}") from error
        return Made(made, loaded.content, self._outcome(started, source, size, consistent, said))

    @staticmethod
    def _outcome(
        started: float, source: Picture, size: tuple[int, int], consistent: float | None, said: list[str]
    ) -> Outcome:
        height, width = source.pixels.shape[:2]
        seconds = time.perf_counter() - started
        return Outcome((width, height), (size[1], size[0]), seconds, consistent, tuple(dict.fromkeys(said)))

    def write(self, job: Job, made: Made | None) -> Outcome:
        """Write the result, whole or not at all, and note that it is there.

        Raises:
            ImageError: If it cannot be written.
        """
        if made is None:
            return Outcome()
        if made.picture is not None:
            try:
                job.target.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ImageError(f"{job.target.parent}: cannot be made a folder: {error.strerror}") from error
            if made.animation is None:
                write_picture(made.picture, job.target)
            else:
                write_animation(made.picture, made.animation, job.target)
        note_done(job, made.content, self.key)
        return made.outcome

    def _described(
        self, source: Picture, size: tuple[int, int], content: str, job: Job, said: list[str]
    ) -> Picture:
        if self.settings.strip:
            return source
        picture = source.described_as(*size)
        if not self.settings.provenance:
            return picture
        height, width = source.pixels.shape[:2]
        full = add_provenance(
            picture, {**self._facts, "input_sha256": content, "input_size": [width, height]}
        )
        kept: dict[str, Any] = {}  # what the input says comes before what is said of it
        for name in sorted({*too_large_for(full, job.target)} - {*too_large_for(picture, job.target)}):
            if getattr(picture, name):
                kept[name] = getattr(picture, name)
                said.append(f"{name} has no room for the provenance, which is left out there")
        return replace(full, **kept)

    def _strips(
        self, pixels: np.ndarray | Rows, size: tuple[int, int], progress: Progress | None, said: list[str]
    ) -> Iterator[np.ndarray]:
        height, width = pixels.shape[0] * self._scale, pixels.shape[1] * self._scale
        precision = self.settings.precision
        strips = upscale_strips(
            self.generator,
            pixels,
            tile_size=self.limits.tile_size
            or tile_size_for(self.generator, pixels.dtype == np.uint8, precision, self.limits.memory // 4),
            precision=precision,
            strip_bytes=self._strip_bytes,
            progress=progress,
            say=lambda tile: said.append(f"memory is short: goes on in tiles of {tile} pixels"),
        )
        return strips if size == (height, width) else resize_rows(strips, (height, width), size)

    @staticmethod
    def _stripped(loaded: Loaded) -> Animation:
        """The frames in sRGB."""
        assert loaded.animation is not None
        frames = [
            strip_metadata(replace(loaded.picture, pixels=frame))[0].pixels
            for frame in loaded.animation.frames
        ]
        return replace(loaded.animation, frames=frames)

    def _animation(
        self, animation: Animation, size: tuple[int, int], progress: Progress | None, said: list[str]
    ) -> Animation:
        count = len(animation.frames)
        frames = []
        for index, frame in enumerate(animation.frames):

            def report(done: int, total: int, index: int = index) -> None:
                if progress is not None:
                    progress(index * total + done, count * total)

            frames.append(np.concatenate(list(self._strips(frame, size, report, said))))
        return replace(animation, frames=frames)

    def _share(self, lr: np.ndarray, sr: np.ndarray) -> float | None:
        if not self.settings.consistency or lr.shape[0] * lr.shape[1] > _CHECKED_PIXELS:
            return None
        if sr.shape[0] != lr.shape[0] * self._scale or sr.shape[1] != lr.shape[1] * self._scale:
            return None
        return given_back(lr, sr)


def _joined(strips: Iterator[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The rows of all strips, which are not held twice."""
    first = next(strips)
    if len(first) == shape[0]:
        return first
    pixels, row = np.empty(shape, first.dtype), 0
    for strip in chain([first], strips):
        pixels[row : row + len(strip)] = strip
        row += len(strip)
    return pixels
