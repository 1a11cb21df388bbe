"""PNG and TIFF files written some rows at a time, read back by other readers."""

import io

import numpy as np
import pytest
from PIL import Image

from sr_hub import strip_writers
from sr_hub.strip_writers import PngWriter, TiffWriter


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    generator = np.random.default_rng(0)
    if dtype == np.float32:
        return generator.normal(size=shape).astype(np.float32)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def written(kind: str, pixels: np.ndarray, rows: int) -> bytes:
    file = io.BytesIO()
    if kind == "png":
        writer = PngWriter(file, pixels.shape, pixels.dtype)
    else:
        writer = TiffWriter(file, pixels.shape, pixels.dtype, {305: "program"})
    for start in range(0, len(pixels), rows):
        writer.write(pixels[start : start + rows])
    writer.close()
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("height", [1, 64, 150])
def test_pillow_reads_every_sample(kind: str, channels: int, height: int) -> None:
    pixels = noise(height, 7, channels)
    with Image.open(io.BytesIO(written(kind, pixels, height))) as image:
        assert image.mode == ["L", "LA", "RGB", "RGBA"][channels - 1]
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize(("kind", "dtype"), [("png", np.uint16), ("tiff", np.uint16), ("tiff", np.float32)])
def test_pillow_reads_deep_grey(kind: str, dtype: type) -> None:
    pixels = noise(70, 9, 1, dtype=dtype)
    with Image.open(io.BytesIO(written(kind, pixels, 70))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels[..., 0])


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("rows", [1, 37, 64, 65])
def test_a_file_does_not_depend_on_its_strips(kind: str, rows: int) -> None:
    pixels = noise(150, 7, 3, dtype=np.uint16)
    one, many = (Image.open(io.BytesIO(written(kind, pixels, size))) for size in (150, rows))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(many))
    if kind == "tiff":
        assert written(kind, pixels, 150) == written(kind, pixels, rows)


@pytest.mark.parametrize("height", [1, 150])  # one offset stands in its entry, several elsewhere
def test_beyond_4_gib_a_tiff_file_is_a_bigtiff(monkeypatch: pytest.MonkeyPatch, height: int) -> None:
    monkeypatch.setattr(strip_writers, "_LARGEST_CLASSIC_TIFF", 10)
    pixels = noise(height, 7, 3)
    data = written("tiff", pixels, 50)
    assert data[:4] == b"II\x2b\0"
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
        assert image.tag_v2[305] == "program"


def test_missing_rows_are_a_mistake() -> None:
    for writer in (
        PngWriter(io.BytesIO(), (3, 2, 1), np.dtype(np.uint8)),
        TiffWriter(io.BytesIO(), (3, 2, 1), np.dtype(np.uint8), {}),
    ):
        writer.write(noise(2, 2, 1))
        with pytest.raises(AssertionError, match="1 rows are missing"):
            writer.close()
