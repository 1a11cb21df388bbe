"""Many clients of the page's API at once: every answer right, no result given to another, no memory kept."""

import itertools
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from page_driver import Server, serve
from PIL import Image

from sr_hub.generator import SRGenerator
from sr_hub.images import read_picture
from sr_hub.inference import upscale

CLIENTS = 8
MEMORY_KEPT = 200e6  # bytes, at most


@dataclass(frozen=True)
class Asked:
    """A picture that no other client has, what is asked, and the samples that must come."""

    path: Path
    fidelity: float
    sr: np.ndarray


def memory_of(pid: int) -> int:
    """Bytes of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def photo(path: Path, width: int, height: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path)
    return path


def bad_files(folder: Path, index: int) -> list[tuple[Path, str]]:
    """Files that a client hands in by mistake or not, and what it must be told."""
    whole = photo(folder / f"whole-{index}.jpg", 200, 160, index).read_bytes()
    chunks = (b"IHDR" + b"\0\0\xff\xff" * 2 + b"\x08\x02\0\0\0", b"IDAT" + bytes(index))
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks
    )
    contents = {
        "text": (b"not an image " * (index + 1), "expected an image file, got a file of unknown"),
        "cut": (whole[: len(whole) // 2], "expected a whole image file, got a broken one"),
        "bomb": (bomb, "the picture has 4294.8 megapixels, at most 64 are taken here"),
    }
    files = []
    for name, (content, message) in contents.items():
        path = folder / f"{name}-{index}.png"
        path.write_bytes(content)
        files.append((path, f"{path.name}: {message}"))
    return files


def work(
    server: Server, folder: Path, model: str, index: int, asked: list[Asked], over: Callable[[], bool]
) -> Counter[str]:
    """What a client does all the time; counts its answers."""
    folder = folder / f"client-{index}"
    folder.mkdir()
    client = Client(server.url, verbose=False, download_files=str(folder))
    bad = itertools.cycle(bad_files(folder, index))
    counts: Counter[str] = Counter()
    for number in itertools.count(index):
        if over() and counts["right"] >= 2 and counts["told"]:  # a slow machine takes its time
            return counts
        one = asked[number % len(asked)]
        got = client.predict(
            file=handle_file(str(one.path)), model=model, fidelity=one.fidelity, api_name="/upscale"
        )
        assert np.array_equal(read_picture(got).pixels, one.sr), f"client {index} got another's picture"
        shutil.rmtree(Path(got).parent)
        counts["right"] += 1
        if number % 3 == 0:
            path, message = next(bad)
            try:
                client.predict(file=handle_file(str(path)), model=model, api_name="/upscale")
            except AppError as error:
                assert str(error).startswith(message), f"client {index} was told {error}"
                counts["told"] += 1
            else:
                raise AssertionError(f"{path.name} was enlarged")
    raise AssertionError("unreachable")


def soak(tmp_path: Path, seconds: float, model: str | None, sizes: list[tuple[int, int]]) -> None:
    """All clients at once for some time."""
    with serve(tmp_path) as server:
        name = model or str(server.model)
        generators = {end: SRGenerator.from_pretrained(name, fidelity=end) for end in (0.0, 1.0)}
        pictures = tmp_path / "pictures"
        pictures.mkdir()
        asked: list[list[Asked]] = [[] for _ in range(CLIENTS)]
        for index, (number, (width, height)) in itertools.product(range(CLIENTS), enumerate(sizes)):
            fidelity = float((index + number) % 2)
            path = photo(pictures / f"{index}-{number}.png", width + index, height, 100 * index + number)
            sr = np.asarray(upscale(generators[fidelity], path))
            asked[index].append(Asked(path, fidelity, sr))
        # One picture, so that the model is there.
        first = Client(server.url, verbose=False, download_files=str(tmp_path / "first"))
        first.predict(file=handle_file(str(asked[0][0].path)), model=name, api_name="/upscale")
        before, end = memory_of(server.pid), time.monotonic() + seconds
        with ThreadPoolExecutor(CLIENTS) as threads:
            runs = [
                threads.submit(
                    work, server, tmp_path, name, index, asked[index], lambda: time.monotonic() > end
                )
                for index in range(CLIENTS)
            ]
            peak = before
            while not all(run.done() for run in runs):
                peak = max(peak, memory_of(server.pid))
                time.sleep(0.1)
            counts = [run.result() for run in runs]
        time.sleep(2)
        after = memory_of(server.pid)
        total = sum(counts, Counter())
        print(
            f"{total['right']} right, {total['told']} told; memory in MB: "
            f"{before / 1e6:.0f} before, {peak / 1e6:.0f} at most, {after / 1e6:.0f} after"
        )
        assert after - before < MEMORY_KEPT
        assert "Traceback" not in server.log.read_text()


def test_many_clients_for_seconds(tmp_path: Path) -> None:
    soak(tmp_path, 8, None, [(24, 20), (64, 48), (300, 200)])


@pytest.mark.slow
def test_many_clients_for_two_minutes(tmp_path: Path) -> None:
    soak(tmp_path, 120, "clean", [(48, 32), (256, 192), (150, 400), (800, 600)])
