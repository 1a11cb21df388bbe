"""How close enlarging a folder comes to the rate of the network alone: ``python -m benchmarks.folder``."""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import as_sentence, describe, seconds_of
from benchmarks.scaling import timed_residual
from sr_hub import cli
from sr_hub.generator import SRGenerator
from sr_hub.inference import upscale
from sr_hub.pretrained import DEFAULT_MODEL

_SIDE = 512  # of the pictures, in pixels


def measure_folder(
    folder: Path, model: str, *, pictures: int = 100, parts: int = 10, sources: Sequence[Path] = ()
) -> dict[str, float]:
    """Times both in turn, so that other work on the machine slows both.

    Args:
        folder: For the pictures and results.
        model: Bundled name or folder.
        pictures: In all, 512x512 each, half of them JPEG and half PNG.
        parts: Folders that the pictures are divided into, each of them one call of ``sr-hub upscale``.
        sources: Pictures to take them from, turned and tiled; by default, smooth noise.

    Returns:
        ``pictures``, ``side``, ``network_seconds``, those inside the network when `upscale` gets the pictures
        as arrays, ``folder_seconds``, loading the model included, both for all pictures, and ``share``, the
        median over the parts of the network's time over the folder's.
    """
    generator = SRGenerator.from_pretrained(model)
    rows = []
    for part in range(parts):
        count = pictures // parts
        made = _make_pictures(folder / f"in{part}", count, part * count, sources)
        network = _network_seconds(generator, made[: count // 2])
        alone = seconds_of(lambda part=part: _enlarge(folder, part, model))  # type: ignore[misc]
        network += _network_seconds(generator, made[count // 2 :])
        rows.append((network, alone))
    return {
        "pictures": parts * (pictures // parts),
        "side": _SIDE,
        "network_seconds": sum(network for network, _ in rows),
        "folder_seconds": sum(alone for _, alone in rows),
        "share": statistics.median(network / alone for network, alone in rows),
    }


def _network_seconds(generator: SRGenerator, pictures: Sequence[Path]) -> float:
    total = 0.0
    for path in pictures:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        with timed_residual() as inside:
            upscale(generator, pixels)
        total += sum(inside)
    return total


def folder_sentence(measured: dict[str, float]) -> str:
    """The same in words."""
    return (
        f"A folder of {measured['pictures']} pictures of {measured['side']}x{measured['side']}: "
        f"{measured['folder_seconds']:.1f} s, the network alone {measured['network_seconds']:.1f} s: "
        f"{measured['share']:.0%} of its rate."
    )


def _enlarge(folder: Path, part: int, model: str) -> None:
    call = ["upscale", str(folder / f"in{part}"), str(folder / f"out{part}"), "--model", model]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(call)
    if code:
        raise RuntimeError(f"sr-hub {' '.join(call)} ended with {code}: {said.getvalue()[-300:]}")


def _make_pictures(folder: Path, count: int, first: int, sources: Sequence[Path]) -> list[Path]:
    folder.mkdir(parents=True)
    made = []
    for index in range(first, first + count):
        random = np.random.default_rng(index)
        if sources:
            with Image.open(sources[index % len(sources)]) as image:
                pixels = np.rot90(np.asarray(image.convert("RGB")), int(random.integers(4)))
            times = (-(-_SIDE // pixels.shape[0]), -(-_SIDE // pixels.shape[1]), 1)
            pixels = np.tile(pixels, times)[:_SIDE, :_SIDE]
        else:
            noise = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
            pixels = np.asarray(noise.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))
        made.append(folder / f"{index:03}.{'jpg' if index % 2 else 'png'}")
        Image.fromarray(pixels).save(made[-1], **({"quality": 92} if index % 2 else {}))
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one sentence."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folder", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="pictures to take the pictures from")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--pictures", type=int, default=100, help="512x512 each (default: %(default)s)")
    options = parser.parse_args(arguments)
    sources = sorted(path for path in options.data.iterdir() if path.is_file()) if options.data else []
    with tempfile.TemporaryDirectory() as folder:
        measured = measure_folder(Path(folder), options.model, pictures=options.pictures, sources=sources)
    print(f"{folder_sentence(measured)} {as_sentence(describe())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
