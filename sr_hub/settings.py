"""What a result is asked to be, what is said of its generator, and what the work may take."""

from dataclasses import dataclass, field
from pathlib import Path

from sr_hub.folders import fingerprint
from sr_hub.inference import Precision
from sr_hub.memory import available_memory
from sr_hub.pretrained import DEFAULT_FIDELITY, ModelFiles, bundled_models

_LARGEST = 10**9


@dataclass(frozen=True)
class Settings:
    """What a result depends on, beside the picture and the model.

    Attributes:
        precision: As in `sr_hub.upscale`.
        scale: Output pixels per input pixel, each way; None for the generator's own.
        width: Of the result, in pixels; None for what `height` or the scale makes it.
        height: Likewise.
        ensemble: Mean over the eight flips and turns.
        consistency: Steps of back-projection.
        strip: Drop all metadata.
        provenance: Write into the result what made it.
        animated: All frames of a GIF, WebP or APNG file, not the first alone.
    """

    precision: Precision = "auto"
    scale: float | None = None
    width: int | None = None
    height: int | None = None
    ensemble: bool = False
    consistency: int = 0
    strip: bool = False
    provenance: bool = True
    animated: bool = False

    def __post_init__(self) -> None:
        if self.scale is not None and (self.width or self.height):
            raise ValueError("scale cannot be asked for together with width or height")
        for name in ("scale", "width", "height"):
            value = getattr(self, name)
            if value is not None and not 0 < value < _LARGEST:
                raise ValueError(f"{name} must be above 0 and below {_LARGEST:,}, got {value}")

    def target_size(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """Height and width of the result of a picture, by a generator that enlarges `scale` times."""
        if self.width and self.height:
            return self.height, self.width
        if self.width:
            return max(1, round(height * self.width / width)), self.width
        if self.height:
            return self.height, max(1, round(width * self.height / height))
        factor = scale if self.scale is None else self.scale
        return max(1, round(height * factor)), max(1, round(width * factor))


@dataclass(frozen=True)
class Model:
    """What is said of the generator in its results.

    Attributes:
        name: Bundled name, name of the folder, or Hub repository.
        revision: Commit of the repository, where it is known.
        fidelity: Blend of a family's two ends; None for a model with one end.
        files: SHA-256 of its weights files, by name.
    """

    name: str
    revision: str | None = None
    fidelity: float | None = None
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_files(cls, files: ModelFiles, fidelity: float | None = None) -> "Model":
        """What is said of a generator that was loaded from `files`, blended as asked for."""
        local = Path(files.name).exists() and files.revision is None and files.name not in bundled_models()
        name = Path(files.name).resolve().name if local else files.name
        blend = None
        if files.fidelity is not None:
            blend = DEFAULT_FIDELITY if fidelity is None else fidelity
        weights = [path for path in (files.weights, files.fidelity) if path is not None]
        return cls(name, files.revision, blend, {path.name: fingerprint(path) for path in weights})


@dataclass(frozen=True)
class Limits:
    """What the work may take. Results do not depend on it.

    Attributes:
        tile_size: As in `sr_hub.upscale`.
        memory: Bytes that pictures and network may take, beside the program itself.
        max_pixels: As in `sr_hub.images.read_picture`.
    """

    tile_size: int | None = None
    memory: int = field(default_factory=lambda: available_memory() // 2)
    max_pixels: int | None = None
