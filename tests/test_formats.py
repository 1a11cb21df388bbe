"""The matrix of formats: every kind of picture through the command line.

It is in ``docs/formats.md``, and, one row for each format, in the README.

``python tests/test_formats.py`` writes both.
"""

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from sr_hub.animation import ANIMATED
from sr_hub.encoding import write_picture
from sr_hub.enlarging import Enlarger
from sr_hub.folders import Job, plan_file
from sr_hub.generator import SRGenerator
from sr_hub.images import Picture, load_plugins, read_picture

ROOT = Path(__file__).parent.parent
PAGE, README = ROOT / "docs" / "formats.md", ROOT / "README.md"
START, END = "<!-- formats:start -->", "<!-- formats:end -->"
PLUGINS = {".heic": "pillow_heif", ".jxl": "pillow_jxl"}
HEAD = """# Picture formats

Each row is a picture that the tests enlarge and read back. `python tests/test_formats.py` writes this page.

| input | becomes | samples kept as | alpha | colour profile, EXIF, XMP | said |
|---|---|---|---|---|---|
"""
SHORT_HEAD = """| read | becomes | bits per sample | alpha | profile, EXIF, XMP | `--animated` |
|---|---|---|---|---|---|
"""
TAIL = """
- Depth, alpha and metadata are those of the input wherever the output's format holds them; what it cannot
  hold is said. `OUT.png` or `OUT.tif` hold everything.
- EXIF orientation is applied and reset, EXIF's own size tags follow the picture, thumbnails are dropped, and
  the resolution grows with the picture, so that it prints at the same size.
- Formats that cannot be written, such as HEIC, become `NAME.heic.png`. HEIC and JPEG XL are read where
  `pip install "sr_hub[formats]"` installed their plugins.
- Of animations the first frame is taken, or all with `--animated` (GIF, WebP, APNG).
- Beside faint pixels colours are weighed by alpha, under transparent ones they are carried on: a cut-out or a
  drop shadow has no dark or bright fringe on any background.
- PNG and TIFF are written some rows at a time and may have any size; the others need the whole picture in
  memory.
- From 16.8 megapixels on, upright JPEG, PNG and TIFF inputs without alpha are read some rows at a time, too,
  where `pip install "sr_hub[large]"` installed pyvips: memory does not grow with the height. Other inputs are
  held: 12 bytes per pixel while they are read, 28 of 16-bit colour. What needs more than `--max-memory` is
  refused before it is decoded. Measured with a tiny network and 1 GiB allowed: a JPEG of 100 megapixels to a
  PNG of 1.6 gigapixels took 1.0 GiB at its peak, program included.
- Inputs above 178,956,970 pixels are taken for decompression bombs; `--max-pixels` raises the limit.
- Not read, as Pillow does not: TIFF with float colour, with 16-bit grey and alpha, and 16-bit grey that is
  big-endian with zero for white. Read with 8 bits: 16-bit CMYK and LAB (said), colour of more than 8 bits in
  AVIF, HEIC, JPEG 2000 and PPM (not said).
"""


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    generator = np.random.default_rng(0)
    if dtype == np.float32:
        return generator.random(shape, dtype=np.float32)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def mode(name: str, **options: object) -> Callable[[Path], None]:
    """A writer of a picture of a PIL mode."""

    def save(path: Path) -> None:
        image = Image.fromarray(noise(8, 9, 4), "RGBA")
        exif = Image.Exif()
        exif[0x010F] = "Maker"
        metadata = {"exif": exif.tobytes(), "icc_profile": PROFILE} if options.get("metadata") else {}
        rest = {key: value for key, value in options.items() if key != "metadata"}
        (image if name == "RGBA" else image.convert("RGB").convert(name)).save(path, **metadata, **rest)

    return save


def samples(channels: int, dtype: type) -> Callable[[Path], None]:
    return lambda path: write_picture(Picture(noise(8, 9, channels, dtype=dtype)), path)


def palette_with_transparency(path: Path) -> None:
    Image.fromarray(noise(8, 9, 3)).quantize(16).save(path, transparency=3)


def two_frames(path: Path) -> None:
    frames = [Image.new("RGB", (9, 8), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(8, 9, 3)).save(path, exif=exif, progressive=True)


def lab(path: Path) -> None:
    rgb = Image.fromarray(noise(8, 9, 3))
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    converted = ImageCms.applyTransform(rgb, to_lab)
    assert converted is not None
    converted.save(path)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Input, file name, channels and dtype of the result.
CASES: dict[str, tuple[str, Callable[[Path], None], int, type]] = {
    "PNG, RGB": ("a.png", mode("RGB", metadata=True), 3, np.uint8),
    "PNG, grey": ("a.png", mode("L"), 1, np.uint8),
    "PNG, grey with alpha": ("a.png", mode("LA"), 2, np.uint8),
    "PNG, RGB with alpha": ("a.png", mode("RGBA"), 4, np.uint8),
    "PNG, palette": ("a.png", mode("P"), 3, np.uint8),
    "PNG, palette with transparency": ("a.png", palette_with_transparency, 4, np.uint8),
    "PNG, 1 bit": ("a.png", mode("1"), 1, np.uint8),
    "PNG, 16-bit grey": ("a.png", samples(1, np.uint16), 1, np.uint16),
    "PNG, 16-bit grey with alpha": ("a.png", samples(2, np.uint16), 2, np.uint16),
    "PNG, 16-bit RGB": ("a.png", samples(3, np.uint16), 3, np.uint16),
    "PNG, 16-bit RGB with alpha": ("a.png", samples(4, np.uint16), 4, np.uint16),
    "PNG, animated": ("a.png", two_frames, 3, np.uint8),
    "TIFF, RGB": ("a.tif", mode("RGB", metadata=True), 3, np.uint8),
    "TIFF, grey": ("a.tif", mode("L"), 1, np.uint8),
    "TIFF, grey with alpha": ("a.tif", mode("LA"), 2, np.uint8),
    "TIFF, RGB with alpha": ("a.tif", mode("RGBA"), 4, np.uint8),
    "TIFF, palette": ("a.tif", mode("P"), 3, np.uint8),
    "TIFF, 1 bit, fax G4": ("a.tif", mode("1", compression="group4"), 1, np.uint8),
    "TIFF, 16-bit grey": ("a.tif", samples(1, np.uint16), 1, np.uint16),
    "TIFF, 16-bit RGB": ("a.tif", samples(3, np.uint16), 3, np.uint16),
    "TIFF, 16-bit RGB with alpha": ("a.tif", samples(4, np.uint16), 4, np.uint16),
    "TIFF, 32-bit float grey": ("a.tif", samples(1, np.float32), 1, np.float32),
    "TIFF, CMYK": ("a.tif", mode("CMYK"), 3, np.uint8),
    "TIFF, LAB": ("a.tif", lab, 3, np.uint8),
    "JPEG, RGB": ("a.jpg", mode("RGB", metadata=True), 3, np.uint8),
    "JPEG, grey": ("a.jpg", mode("L"), 1, np.uint8),
    "JPEG, progressive, orientation 6": ("a.jpg", turned, 3, np.uint8),
    "JPEG, CMYK": ("a.jpg", mode("CMYK"), 3, np.uint8),
    "WebP, RGB": ("a.webp", mode("RGB", metadata=True), 3, np.uint8),
    "WebP, RGB with alpha": ("a.webp", mode("RGBA"), 4, np.uint8),
    "WebP, animated": ("a.webp", two_frames, 3, np.uint8),
    "AVIF, RGB": ("a.avif", mode("RGB", metadata=True), 3, np.uint8),
    "AVIF, RGB with alpha": ("a.avif", mode("RGBA"), 4, np.uint8),
    "HEIC, RGB": ("a.heic", mode("RGB", metadata=True), 3, np.uint8),
    "JPEG XL, RGB": ("a.jxl", mode("RGB", metadata=True), 3, np.uint8),
    "GIF": ("a.gif", mode("P"), 3, np.uint8),
    "GIF, animated": ("a.gif", two_frames, 3, np.uint8),
    "BMP": ("a.bmp", mode("RGB"), 3, np.uint8),
    "TGA, RGB with alpha": ("a.tga", mode("RGBA"), 4, np.uint8),
    "PPM": ("a.ppm", mode("RGB"), 3, np.uint8),
    "JPEG 2000": ("a.jp2", mode("RGB"), 3, np.uint8),
    "ICO": ("a.ico", mode("RGBA", sizes=[(9, 8)]), 4, np.uint8),
}
NAMES = {np.uint8: "8 bits", np.uint16: "16 bits", np.float32: "32-bit float"}


def enlarge(name: str, folder: Path) -> tuple[str, Picture, Picture, tuple[str, ...]]:
    """The result's suffix, the input, the result, and what was said."""
    file, save, _, _ = CASES[name]
    if plugin := PLUGINS.get(Path(file).suffix):
        pytest.importorskip(plugin, reason=f"{name} needs {plugin}")
        load_plugins()
    save(folder / file)
    torch.manual_seed(0)
    enlarger = Enlarger(SRGenerator(features=4, blocks=1))
    job: Job = plan_file(folder / file, folder / "out").jobs[0]
    outcome = enlarger.write(job, enlarger.make(job, enlarger.read(job)))
    suffix = job.target.name.removeprefix("a")
    return suffix, read_picture(folder / file), read_picture(job.target), outcome.notices


@pytest.mark.parametrize("name", CASES)
def test_every_format_is_enlarged(tmp_path: Path, name: str) -> None:
    _, _, channels, dtype = CASES[name]
    suffix, source, result, said = enlarge(name, tmp_path)
    if suffix != ".gif":
        assert result.pixels.shape[2] == channels
    assert result.pixels.dtype == dtype
    assert result.pixels.shape[:2] == (4 * source.pixels.shape[0], 4 * source.pixels.shape[1])
    if source.icc_profile and suffix in (".png", ".tif", ".jpg", ".webp", ".avif", ".heic.png", ".jxl.png"):
        assert result.icc_profile == source.icc_profile
    # The untrained network is close to nearest-neighbour: the picture is the same one.
    small = result.pixels[2::4, 2::4, :3].astype(float).mean(axis=2)
    difference = np.abs(small - source.pixels[..., :3].astype(float).mean(axis=2))
    full = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    if source.pixels.shape[2] in (1, 3) and suffix != ".gif":
        assert difference.mean() < 0.2 * full
    if source.notices:
        assert set(source.notices) <= set(said)


def results(folder: Path) -> dict[str, tuple[str, Picture, Picture, tuple[str, ...]] | None]:
    """What `enlarge` gives for every case; None where a plugin is missing."""
    found: dict[str, tuple[str, Picture, Picture, tuple[str, ...]] | None] = {}
    for index, name in enumerate(CASES):
        place = folder / str(index)
        place.mkdir()
        try:
            found[name] = enlarge(name, place)
        except pytest.skip.Exception:
            found[name] = None
    return found


def cells_of(source: Picture, result: Picture) -> tuple[str, str, str]:
    """Bits per sample, alpha and metadata of the result."""
    alpha = source.pixels.shape[2] in (2, 4)
    return (
        NAMES[result.pixels.dtype.type],
        ("kept" if result.pixels.shape[2] in (2, 4) else "laid on white") if alpha else "none",
        "kept" if result.exif or result.icc_profile or result.xmp else "not held by the format",
    )


def page(found: dict[str, tuple[str, Picture, Picture, tuple[str, ...]] | None]) -> str:
    lines = []
    for name, case in found.items():
        if case is None:
            lines.append(f"| {name} | with its plugin: {CASES[name][0].removeprefix('a')}.png | | | | |")
            continue
        suffix, source, result, said = case
        bits, alpha, metadata = cells_of(source, result)
        color = "grey" if result.pixels.shape[2] < 3 else "RGB"
        lines.append(f"| {name} | {suffix} | {color}, {bits} | {alpha} | {metadata} | {'; '.join(said)} |")
    return HEAD + "\n".join(lines) + "\n" + TAIL


def short_table(found: dict[str, tuple[str, Picture, Picture, tuple[str, ...]] | None]) -> str:
    """One row for each format."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for name, case in found.items():
        file = CASES[name][0].removeprefix("a")
        cells = (
            (f"{file}.png", "8 bits", "none", "kept") if case is None else (case[0], *cells_of(*case[1:3]))
        )
        rows.setdefault(name.partition(",")[0], []).append(cells)
    lines = []
    for name, cells in rows.items():
        suffixes, bits, alphas, metadata = (
            list(dict.fromkeys(column)) for column in zip(*cells, strict=True)
        )
        alpha = next((text for text in alphas if text != "none"), "none")
        depths = ", ".join(text.removesuffix(" bits").replace("32-bit float", "float 32") for text in bits)
        frames = "all frames" if name.upper() in ANIMATED else ""
        lines.append(f"| {name} | {suffixes[0]} | {depths} | {alpha} | {metadata[0]} | {frames} |")
    return SHORT_HEAD + "\n".join(lines) + "\n"


def put_in(readme: str, table: str) -> str:
    assert readme.count(START) == readme.count(END) == 1
    return readme[: readme.index(START) + len(START)] + "\n" + table + readme[readme.index(END) :]


def test_the_pages_are_those_of_the_tests(tmp_path: Path) -> None:
    found = results(tmp_path)
    written, readme = (path.read_text(encoding="utf-8").splitlines() for path in (PAGE, README))
    # What a plugin decides depends on whether it is installed.
    for line in page(found).splitlines():
        assert line.startswith(("| HEIC", "| JPEG XL")) or line in written, (
            "run: python tests/test_formats.py"
        )
    for line in short_table(found).splitlines():
        assert line.startswith(("| HEIC", "| JPEG XL")) or line in readme, "run: python tests/test_formats.py"
    rows = [line for line in written if line.startswith("| ") and not line.startswith("| input")]
    assert len(rows) == len(CASES)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        made = results(Path(folder))
    PAGE.write_text(page(made), encoding="utf-8")
    README.write_text(put_in(README.read_text(encoding="utf-8"), short_table(made)), encoding="utf-8")
    sys.exit(0)
