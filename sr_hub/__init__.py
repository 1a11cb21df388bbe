"""4x photo super-resolution: ``SRGenerator.from_pretrained()`` and ``upscale(generator, image)``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr_hub.generator import SRGenerator
    from sr_hub.inference import upscale

__version__ = "0.1.0"
__all__ = ["SRGenerator", "__version__", "upscale"]

_HOMES = {"SRGenerator": "sr_hub.generator", "upscale": "sr_hub.inference"}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use, so that ``import sr_hub`` alone stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'sr_hub' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
