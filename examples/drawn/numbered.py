"""What the programs of this folder share: pictures with numbers, each written whole or not at all."""

import argparse
from collections.abc import Callable, Iterable
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


def save(out: Path, name: str, numbers: Iterable[int], draw: Callable[[int], Image.Image]) -> None:
    """Writes ``out/name-00000.png`` and so on, each to a temporary file that is renamed."""
    out.mkdir(parents=True, exist_ok=True)
    for number in tqdm(numbers, unit="picture"):
        target = out / f"{name}-{number:05d}.png"
        temporary = target.with_name(target.name + ".tmp")
        draw(number).save(temporary, format="PNG")
        temporary.replace(target)
