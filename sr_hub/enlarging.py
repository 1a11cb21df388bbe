"""One picture file to another, with all settings; made for `sr_hub.pipeline` and for workers of a cluster."""

import json
import time
from dataclasses import asdict, dataclass

import torch
from PIL import Image

from sr_hub.encoding import cannot_keep, check_fits, write_picture
from sr_hub.folders import Job, fingerprint, is_done, note_done
from sr_hub.images import ImageError, Picture, read_picture
from sr_hub.inference import Precision, Progress, upscale_picture
from sr_hub.provenance import hash_weights


@dataclass(frozen=True)
class Settings:
    """What a result depends on, beside the picture and the model.

    Attributes:
        precision: As in `sr_hub.upscale`.
    """

    precision: Precision = "auto"


@dataclass(frozen=True)
class Loaded:
    """A picture that was read, and the hash of its file."""

    picture: Picture
    content: str


@dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        source_size: Width and height of the input; None if the result was there already.
        target_size: Width and height of the result; likewise.
        seconds: The network took.
        notices: What could not be kept as it was, in words for the user.
    """

    source_size: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None
    seconds: float = 0.0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A result that is to be written."""

    picture: Picture
    content: str
    outcome: Outcome


class Enlarger:
    """Reads, enlarges and writes picture files with one generator.

    Args:
        generator: Such as `sr_hub.SRGenerator`.
        settings: What the results depend on.
        tile_size: As in `sr_hub.upscale`.
        overwrite: Make results anew that are there already.
    """

    def __init__(
        self,
        generator: torch.nn.Module,
        settings: Settings,
        *,
        tile_size: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.generator = generator
        self.settings = settings
        self.tile_size = tile_size
        self.overwrite = overwrite
        identity = {"weights": hash_weights(generator), **asdict(settings)}
        self.key = json.dumps(identity, sort_keys=True)

    def weigh(self, job: Job) -> int:
        """Bytes that a picture takes while it is under way, about, by what its header says."""
        try:
            with Image.open(job.source) as image:
                return 4 * image.width * image.height * (2 + 2 * int(self.generator.scale) ** 2)  # type: ignore[arg-type]  # an int
        except Exception:  # hostile bytes; reading it will tell
            return 0

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
        return Loaded(read_picture(job.source), content)

    def make(self, job: Job, loaded: Loaded | None, progress: Progress | None = None) -> Made | None:
        """The result, or None if there is nothing to do.

        Raises:
            ImageError: If the result cannot be written to its place, or memory is short.
        """
        if loaded is None:
            return None
        picture, scale = loaded.picture, int(self.generator.scale)  # type: ignore[arg-type]  # an int
        height, width = picture.pixels.shape[:2]
        check_fits(job.target, scale * height, scale * width)
        started = time.perf_counter()
        try:
            enlarged = upscale_picture(
                self.generator,
                picture,
                tile_size=self.tile_size,
                precision=self.settings.precision,
                progress=progress,
            )
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise ImageError(f"{job.source}: not enough memory; a smaller --tile-size needs less") from error
        notices = (*picture.notices, *cannot_keep(picture, job.target))
        sizes = (width, height), (scale * width, scale * height)
        return Made(enlarged, loaded.content, Outcome(*sizes, time.perf_counter() - started, notices))

    def write(self, job: Job, made: Made | None) -> Outcome:
        """Write the result, whole or not at all, and note that it is there.

        Raises:
            ImageError: If it cannot be written.
        """
        if made is None:
            return Outcome()
        try:
            job.target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{job.target.parent}: no folder can be made there: {error.strerror}") from error
        write_picture(made.picture, job.target)
        note_done(job, made.content, self.key)
        return made.outcome
