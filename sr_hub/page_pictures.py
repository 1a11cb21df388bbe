"""The example pictures of the page."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
_THUMBNAIL = 184  # pixels a side: twice what is shown, for dense screens


@dataclass(frozen=True)
class Example:
    """A picture to try.

    Attributes:
        name: In words.
        path: Its file.
        thumbnail: A small copy, as an address that holds the picture itself.
    """

    name: str
    path: Path
    thumbnail: str


def example_pictures(folder: Path = PICTURES) -> list[Example]:
    """The pictures of a folder, by name; none where there is no such folder."""
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".png", ".jpg", ".webp"))
    return [Example(path.stem.replace("_", " "), path, _thumbnail(path)) for path in paths]


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        small = image.convert("RGB")
    side = min(small.size)
    left, top = (small.width - side) // 2, (small.height - side) // 2
    small = small.crop((left, top, left + side, top + side)).resize((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
