"""Pictures of any size, mode and tiling, and broken files of every kind, from file to file."""

import io
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sr_hub.encoding import write_picture
from sr_hub.enlarging import Enlarger
from sr_hub.folders import Job
from sr_hub.generator import SRGenerator
from sr_hub.images import Picture, read_picture
from sr_hub.settings import Limits, Settings

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I", "F", "CMYK", "LAB"]
DEEP = {f"{channels} x {np.dtype(dtype)}": (channels, dtype) for channels in (2, 3, 4) for dtype in ("u2",)}


class Overlapping(torch.nn.Module):
    """A network whose tiles overlap by more than they must."""

    def __init__(self, blocks: int, more: int) -> None:
        super().__init__()
        torch.manual_seed(blocks)
        self.network = SRGenerator(features=4, blocks=blocks)
        with torch.no_grad():
            self.network.tail.weight.mul_(5)
        self.scale, self.receptive_radius = 4, self.network.receptive_radius + more

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return self.network(lr)


def save(folder: Path, kind: str, height: int, width: int, seed: int) -> Path:
    """A picture of noise with holes."""
    generator = np.random.default_rng(seed)
    if kind in DEEP:
        channels, dtype = DEEP[kind]
        pixels = generator.integers(0, 65536, (height, width, channels), dtype=dtype)
        pixels[..., -1] *= generator.random((height, width)) < 0.7
        write_picture(Picture(pixels), folder / "a.png")
        return folder / "a.png"
    pixels = generator.integers(0, 256, (height, width, 4), dtype=np.uint8)
    pixels[..., 3] *= generator.random((height, width)) < 0.7
    color = Image.fromarray(pixels, "RGBA")
    if kind in ("I;16", "I", "F"):
        values = generator.integers(0, 65536, (height, width))
        image = Image.fromarray(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[kind]))
    elif kind == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        image = ImageCms.applyTransform(color.convert("RGB"), to_lab)  # type: ignore[assignment]
    elif kind == "PA":
        color.quantize(16).save(folder / "a.png", transparency=bytes(range(0, 256, 16)))
        return folder / "a.png"
    elif kind in ("LA", "RGBA"):
        image = color.convert(kind)
    else:
        image = color.convert("RGB").convert(kind)
    image.save(folder / "a.tif")
    return folder / "a.tif"


@pytest.mark.parametrize("kind", [*MODES, *DEEP])
@settings(deadline=None, max_examples=6)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    tile_size=st.integers(1, 60),
    blocks=st.integers(1, 2),
    more=st.integers(0, 20),
    memory=st.sampled_from([60_000, 400_000, 2**30]),
    seed=st.integers(0, 99),
)
def test_tiled_equals_whole_in_every_mode(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    size: tuple[int, int],
    tile_size: int,
    blocks: int,
    more: int,
    memory: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    source = save(folder, kind, *size, seed)
    results = []
    for name, extra, limits in (
        ("whole", 0, Limits(tile_size=1000, memory=2**30)),
        ("tiled", more, Limits(tile_size=tile_size, memory=memory)),
    ):
        job = Job("a", source, folder / f"{name}{source.suffix}")
        enlarger = Enlarger(Overlapping(blocks, extra), Settings("fp32"), limits=limits)
        enlarger.write(job, enlarger.make(job, enlarger.read(job)))
        results.append(read_picture(job.target))
    whole, tiled = results
    given_shape = read_picture(source).pixels.shape
    assert whole.pixels.shape == tiled.pixels.shape == (4 * size[0], 4 * size[1], given_shape[2])
    assert whole.pixels.dtype == tiled.pixels.dtype
    step = 2e-6 if whole.pixels.dtype == np.float32 else 1
    assert np.abs(whole.pixels.astype(np.float64) - tiled.pixels.astype(np.float64)).max() <= step


BROKEN: dict[str, dict[str, object]] = {
    "a.png": {}, "b.jpg": {}, "c.jpg": {"progressive": True}, "d.webp": {}, "f.tif": {}, "g.gif": {},
    "e.tif": {"compression": "tiff_lzw"}, "n.tif": {"compression": "jpeg"}, "h.bmp": {}, "i.ppm": {},
    "j.tga": {}, "k.jp2": {}, "l.avif": {}, "m.ico": {}, "o.dds": {}, "p.pcx": {}, "q.sgi": {}, "r.im": {},
}  # fmt: skip


def damage(folder: Path, count: int) -> int:
    """Write `count` damaged copies of a file of every kind: cut, flipped, zeroed, doubled; how many files."""
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name, options in BROKEN.items():
        file = io.BytesIO()
        kind = Image.registered_extensions()[Path(name).suffix]
        Image.fromarray(rows).save(file, kind, **options)
        whole = file.getvalue()
        for index in range(count):
            content = bytearray(whole)
            start = int(generator.integers(0, min(len(whole), 600)))
            if index % 4 == 0:
                content = content[: int(generator.integers(1, len(whole)))]
            elif index % 4 == 1:
                content[start : start + 4] = generator.integers(0, 256, 4, dtype=np.uint8).tobytes()
            elif index % 4 == 2:
                content[start : start + 2] = [b"\0\0", b"\xff\xff", b"\x7f\xff"][index % 3]
            else:
                content[start:start] = content[: int(generator.integers(1, 64))]
            (folder / f"{index:03}{name}").write_bytes(content)
    return count * len(BROKEN)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no alarms")
def test_no_broken_file_takes_ten_seconds_or_two_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    count = damage(tmp_path / "in", 60)
    program = """
        import json, resource, signal, sys, time, warnings
        from pathlib import Path
        from sr_hub.enlarging import Enlarger
        from sr_hub.folders import Job
        from sr_hub.generator import SRGenerator
        from sr_hub.images import ImageError
        from sr_hub.settings import Limits
        warnings.simplefilter("ignore")
        enlarger = Enlarger(SRGenerator(features=4, blocks=1), limits=Limits(memory=2**30))
        made = failed = 0
        slowest = (0.0, "")
        for path in sorted(Path(sys.argv[1]).iterdir()):
            print(path.name, file=sys.stderr, flush=True)
            signal.alarm(10)  # ends the process, inside a decoder, too
            started = time.perf_counter()
            job = Job(path.name, path, Path(sys.argv[2]) / (path.name + ".png"))
            try:
                enlarger.write(job, enlarger.make(job, enlarger.read(job)))
                made += 1
            except ImageError as error:
                assert str(path) in str(error) or str(job.target) in str(error), error
                assert "\\n" not in str(error)
                failed += 1
            slowest = max(slowest, (time.perf_counter() - started, path.name))
        signal.alarm(0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"made": made, "failed": failed, "peak": peak, "slowest": slowest}))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "in"), str(tmp_path / "out")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"stopped at {run.stderr[-500:]}"
    said = json.loads(run.stdout)
    assert said["made"] + said["failed"] == count and said["made"] > 100 < said["failed"]
    assert said["peak"] < 2e6  # kB
    results = list((tmp_path / "out").iterdir())
    assert len(results) == said["made"]  # nothing partial
    for path in results:
        read_picture(path, max_pixels=2**31)
