"""Rows read one after the other are those of the whole picture; memory does not grow with the height."""

import os
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

from sr_hub import enlarging
from sr_hub.encoding import write_picture
from sr_hub.enlarging import Enlarger
from sr_hub.folders import Job
from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError, Picture, read_picture
from sr_hub.row_reader import open_rows
from sr_hub.settings import Limits, Settings

pytest.importorskip("pyvips", reason='needs pyvips: pip install "sr_hub[large]"')

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def save(path: Path, kind: str, height: int = 150, width: int = 37) -> Path:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    channels, dtype = (1 if "grey" in kind else 3), (np.uint16 if "16" in kind else np.uint8)
    pixels = noise(height, width, channels, dtype=dtype)
    if kind.startswith("jpg"):
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
        image.save(path, "JPEG", progressive="progressive" in kind, exif=exif, icc_profile=ICC, dpi=(72, 72))
    elif "lzw" in kind:
        Image.fromarray(pixels).save(path, "TIFF", compression="tiff_lzw", icc_profile=ICC)
    else:
        picture = Picture(pixels, exif=exif.tobytes(), icc_profile=ICC, dpi=(100.0, 100.0), xmp=b"<x/>")
        write_picture(picture, path)
    return path


KINDS = ["a.png", "grey.png", "16.png", "grey16.png", "a.tif", "lzw.tif", "16.tif", "grey16.tif"]
KINDS += ["jpg.jpg", "jpg grey.jpg", "jpg progressive.jpg"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_metadata_are_those_of_the_whole(tmp_path: Path, kind: str) -> None:
    path = save(tmp_path / kind, kind)
    opened = open_rows(path)
    assert opened is not None
    (header, rows), whole = opened, read_picture(path)
    assert rows.shape == header.pixels.shape == whole.pixels.shape and rows.dtype == whole.pixels.dtype
    np.testing.assert_array_equal(rows[0:150], whole.pixels)
    for name in ("format", "icc_profile", "exif", "xmp", "dpi", "png_color", "value_range", "notices"):
        assert getattr(header, name) == getattr(whole, name), name
    assert rows.is_grey() == ("grey" in kind)


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.tuples(st.integers(0, 149), st.integers(1, 90)), min_size=1, max_size=6))
def test_windows_in_any_order(cuts: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = save(tmp_path_factory.mktemp("rows") / "a.png", "a.png")
    opened, whole = open_rows(path), read_picture(path).pixels
    assert opened is not None
    for start, count in cuts:
        np.testing.assert_array_equal(opened[1][start : start + count], whole[start : start + count])


def test_what_has_to_be_read_whole_is_not_opened(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    color = Image.fromarray(noise(20, 20, 3))
    color.save(tmp_path / "turned.jpg", exif=turned)
    color.convert("CMYK").save(tmp_path / "cmyk.jpg")
    color.convert("P").save(tmp_path / "palette.png")
    color.convert("1").save(tmp_path / "bits.png")
    color.save(tmp_path / "key.png", transparency=(1, 2, 3))
    color.save(tmp_path / "a.webp")
    Image.fromarray(noise(20, 20, 4)).save(tmp_path / "alpha.png")
    color.save(tmp_path / "frames.png", save_all=True, append_images=[color.rotate(9)])
    late = (tmp_path / "key.png").read_bytes()
    color.save(tmp_path / "late.png")
    data = (tmp_path / "late.png").read_bytes()
    assert late[-8:] == data[-8:]
    (tmp_path / "late.png").write_bytes(data[:-12] + b"\0\0\0\3tEXta\0b" + bytes(4) + data[-12:])
    for path in sorted(tmp_path.iterdir()):
        assert open_rows(path) is None, path.name
    assert open_rows(save(tmp_path / "a.png", "a.png"), least_pixels=150 * 37 + 1) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_utf8_is_left_to_pillow(tmp_path: Path) -> None:
    path = save(tmp_path / os.fsdecode(b"\xff.png"), "a.png")
    assert open_rows(path, least_pixels=0) is None
    assert read_picture(path).pixels.shape == (150, 37, 3)


@pytest.mark.parametrize("kind", ["a.png", "jpg.jpg", "16.tif"])
@pytest.mark.parametrize("scale", [None, 3.0])
def test_a_streamed_result_is_that_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, scale: float | None
) -> None:
    torch.manual_seed(0)
    source = save(tmp_path / kind, kind)
    enlarger = Enlarger(
        SRGenerator(features=4, blocks=1), Settings("fp32", scale=scale), limits=Limits(memory=10**6)
    )
    results = []
    for least in (2**40, 1):
        monkeypatch.setattr(enlarging, "_STREAMED_PIXELS", least)
        job = Job(kind, source, tmp_path / f"{least}.png")
        loaded = enlarger.read(job)
        assert loaded is not None and (loaded.rows is not None) == (least == 1)
        enlarger.write(job, enlarger.make(job, loaded))
        results.append(read_picture(job.target))
    np.testing.assert_array_equal(results[0].pixels, results[1].pixels)
    assert results[0].exif == results[1].exif and results[0].xmp == results[1].xmp


@pytest.mark.parametrize("kind", ["a.png", "jpg.jpg", "lzw.tif"])
def test_half_a_file_is_one_sentence_and_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(enlarging, "_STREAMED_PIXELS", 1)
    source = save(tmp_path / kind, kind, height=600)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 3 // 4] + (bytes(20) if kind == "lzw.tif" else b""))
    enlarger = Enlarger(SRGenerator(features=4, blocks=1), limits=Limits(memory=10**6))
    job = Job(kind, source, tmp_path / "out" / "b.png")
    with pytest.raises(ImageError, match="expected .*image file, got") as caught:
        enlarger.write(job, enlarger.make(job, enlarger.read(job)))
    assert str(source) in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_memory_does_not_grow_with_the_height(tmp_path: Path, suffix: str) -> None:
    program = """
        import resource, sys
        from pathlib import Path
        from sr_hub import enlarging
        from sr_hub.enlarging import Enlarger
        from sr_hub.folders import plan_file
        from sr_hub.generator import SRGenerator
        from sr_hub.settings import Limits
        enlarging._STREAMED_PIXELS = 1
        enlarger = Enlarger(SRGenerator(features=4, blocks=1), limits=Limits(memory=2**26))
        job = plan_file(Path(sys.argv[1]), Path(sys.argv[2])).jobs[0]
        enlarger.write(job, enlarger.make(job, enlarger.read(job)))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    peaks = []
    for height in (10_000, 40_000):
        row = Image.fromarray(noise(64, 250, 3)).resize((250, height))
        row.save(tmp_path / f"{height}.{suffix}")
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / f"{height}.{suffix}")]
        run = subprocess.run([*command, str(tmp_path / "out.png")], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        peaks.append(int(run.stdout))
    assert peaks[1] < peaks[0] + 20, peaks  # MB; held, the input alone would add 22, and 52 while it is read
