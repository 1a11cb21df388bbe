"""What the programs of this folder share: pictures with numbers, each written whole or not at all."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from sr_hub.data import list_images


def photos_of(parser: argparse.ArgumentParser, folder: Path, out: Path) -> list[Path]:
    """The pictures in ``folder`` but for those in ``out``; without any the program ends."""
    photos = [path for path in list_images(folder) if out not in path.parents]
    if not photos:
        parser.error(f"expected pictures in {folder}, found none")
    return photos


def save(out: Path, name: str, pictures: Iterable[tuple[int, Image.Image]], count: int) -> None:
    """Writes ``out/name-00000.png`` and so on, each once it is drawn, first to a temporary file."""
    out.mkdir(parents=True, exist_ok=True)
    for number, picture in tqdm(pictures, total=count, unit="picture"):
        target = out / f"{name}-{number:05d}.png"
        temporary = target.with_name(target.name + ".tmp")
        picture.save(temporary, format="PNG")
        temporary.replace(target)
