"""Image files: every depth and mode, metadata, broken files, whole writes."""

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from sr_hub import images
from sr_hub import pixels as pixels_module
from sr_hub.encoding import cannot_keep, check_fits, writable_format, write_picture
from sr_hub.images import ImageError, Picture, from_pil, read_picture, to_pil
from sr_hub.pixels import extend_colors, is_grey, join_alpha, round_to
from sr_hub.strip_writers import PngWriter

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="%d"/></x:xmpmeta>'
MAKER, X_RESOLUTION, WIDTH, HEIGHT, GPS_REFERENCE = 0x010F, 282, 0xA002, 0xA003, 1


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    generator = np.random.default_rng(0)
    if dtype == np.float32:
        return generator.random(shape, dtype=np.float32)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def exif(orientation: int = 1) -> Image.Exif:
    block = Image.Exif()
    block[0x0112], block[MAKER], block[X_RESOLUTION] = orientation, "Maker", 72.0
    block.get_ifd(0x8769).update({WIDTH: 9, HEIGHT: 7})
    block.get_ifd(0x8825)[GPS_REFERENCE] = "N"
    return block


def parsed(data: bytes | None) -> Image.Exif:
    block = Image.Exif()
    block.load(data or b"")
    return block


# Depth and channels


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_and_tiff_keep_every_sample(tmp_path: Path, suffix: str, channels: int, dtype: type) -> None:
    pixels = noise(131, 37, channels, dtype=dtype)  # more rows than one strip holds
    write_picture(Picture(pixels), tmp_path / f"a{suffix}")
    again = read_picture(tmp_path / f"a{suffix}").pixels
    if (suffix, channels, dtype) == (".tif", 2, np.uint16):
        pixels = pixels[..., [0, 0, 0, 1]]  # written as RGBA, which Pillow reads
    assert again.dtype == dtype
    np.testing.assert_array_equal(again, pixels)


def test_deep_png_is_what_another_library_reads(tmp_path: Path) -> None:
    from skimage import io as skimage_io

    pixels = noise(5, 6, 3, dtype=np.uint16)
    write_picture(Picture(pixels), tmp_path / "a.tif")
    np.testing.assert_array_equal(skimage_io.imread(tmp_path / "a.tif"), pixels)


def test_deep_png_decodes_to_its_high_bytes_in_pillow(tmp_path: Path) -> None:
    pixels = noise(70, 6, 4, dtype=np.uint16)
    write_picture(Picture(pixels), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels >> 8)


def test_float_tiff_keeps_its_range(tmp_path: Path) -> None:
    values = np.array([[-2.0, 0.0], [0.5, 6.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")
    np.testing.assert_allclose(picture.pixels[..., 0], [[0, 0.25], [0.3125, 1]])
    write_picture(picture, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert image.mode == "F"
        np.testing.assert_allclose(np.asarray(image), values, atol=1e-6)


def test_float_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[np.nan]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif: .*finite"):
        read_picture(tmp_path / "a.tif")


def test_rounding_between_depths() -> None:
    assert round_to(np.uint16, np.array([0, 128, 255], np.uint8)).tolist() == [0, 32896, 65535]
    # 65535 / 255 = 257: half a step is 128.5
    assert round_to(np.uint8, np.array([0, 128, 129, 65535], np.uint16)).tolist() == [0, 0, 1, 255]
    assert round_to(np.uint8, np.array([0.0, 0.5, 1.0], np.float32)).tolist() == [0, 128, 255]


# Modes


def test_modes_become_grey_or_rgb() -> None:
    grey = Image.fromarray(noise(4, 5))
    color = Image.fromarray(noise(4, 5, 4), "RGBA")
    shapes = {
        mode: from_pil(image.convert(mode)).pixels.shape[2]
        for mode, image in [
            *((mode, grey) for mode in ("1", "L", "LA", "I", "F")),
            *((mode, color) for mode in ("RGB", "RGBA", "RGBa", "RGBX", "P", "CMYK", "YCbCr", "HSV")),
        ]
    }
    assert shapes == {
        **{"1": 1, "L": 1, "LA": 2, "I": 1, "F": 1},
        **{"RGB": 3, "RGBA": 4, "RGBa": 4, "RGBX": 3, "P": 4, "CMYK": 3, "YCbCr": 3, "HSV": 3},
    }


def test_one_bit_becomes_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert from_pil(image).pixels[..., 0].tolist() == [[0, 255]]


def test_palette_colors_and_their_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert from_pil(image).pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]
    image.info["transparency"] = bytes([0, 128])
    assert from_pil(image).pixels.tolist() == [[[10, 20, 30, 0], [200, 100, 50, 128]]]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_color_becomes_alpha(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (2, 1), "white")
    image.putpixel((0, 0), 7 if mode == "L" else (7, 8, 9))
    image.save(tmp_path / "a.png", transparency=7 if mode == "L" else (7, 8, 9))
    assert read_picture(tmp_path / "a.png").pixels[0, :, -1].tolist() == [0, 255]


@pytest.mark.parametrize(("bits", "row"), [(2, 0b00011011), (4, 0x02)])
def test_a_transparent_grey_of_few_bits_becomes_alpha(tmp_path: Path, bits: int, row: int) -> None:
    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    samples = zlib.compress(bytes([0, row]))
    chunks = ((b"IHDR", header), (b"tRNS", struct.pack(">H", 2)), (b"IDAT", samples), (b"IEND", b""))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )
    expected = {2: [[0, 255], [85, 255], [170, 0], [255, 255]], 4: [[0, 255], [34, 0]]}[bits]
    assert read_picture(tmp_path / "a.png").pixels[0].tolist() == expected


def test_a_transparent_deep_grey_becomes_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[300, 301]], np.uint16))
    image.save(tmp_path / "a.png", transparency=300)
    assert read_picture(tmp_path / "a.png").pixels.tolist() == [[[300, 0], [301, 65535]]]


def test_cmyk_is_converted_and_said() -> None:
    picture = from_pil(Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]
    assert picture.notices == ("CMYK is converted to RGB by the plain formula, as it has no profile",)


def test_cmyk_with_a_broken_profile_is_converted_without_it() -> None:
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    image.info["icc_profile"] = b"broken" * 20
    picture = from_pil(image)
    assert picture.pixels[0, 0].tolist() == [255, 0, 0]
    assert picture.notices == ("CMYK is converted to RGB by the plain formula, as its profile is broken",)


def test_lab_is_converted_by_its_profile() -> None:
    # sRGB red relative to D50 is L* 54.3, a* 80.8, b* 69.9; stored as L*255/100, a+128 and b+128.
    lab = Image.merge("LAB", [Image.new("L", (1, 1), value) for value in (138, 209, 198)])
    picture = from_pil(lab)
    red, green, blue = (int(value) for value in picture.pixels[0, 0])
    assert red > 245 and green < 20 and blue < 20
    assert picture.icc_profile is not None
    assert struct.unpack(">6H", picture.icc_profile[24:36]) == (2000, 1, 1, 0, 0, 0)  # not of this second
    ImageCms.ImageCmsProfile(io.BytesIO(picture.icc_profile))


def test_wide_integers_are_mapped_and_said() -> None:
    picture = from_pil(Image.fromarray(np.array([[-10, 100000]], np.int32)))
    assert picture.pixels[..., 0].tolist() == [[0, 65535]]
    assert "from -10 to 100000" in picture.notices[0]


def test_an_even_picture_of_wide_integers_is_read() -> None:
    assert from_pil(Image.new("I", (2, 2), 70000)).pixels.tolist() == [[[0], [0]]] * 2


def test_floats_of_the_widest_range_come_back() -> None:
    values = np.array([[-3e38, 0, 3e38]], np.float32)
    picture = from_pil(Image.fromarray(values))
    np.testing.assert_allclose(images.restore_range(picture, picture.pixels)[..., 0], values, atol=1e32)


def test_only_the_first_frame_is_read_and_said(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), value) for value in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    picture = read_picture(tmp_path / "a.gif")
    assert picture.pixels.max() == 0
    assert picture.notices == ("only the first of its frames is used",)


def test_to_pil_gives_the_matching_mode() -> None:
    cases = [(np.uint8, 1, "L"), (np.uint8, 2, "LA"), (np.uint8, 3, "RGB"), (np.uint8, 4, "RGBA")]
    cases += [(np.uint16, 1, "I;16"), (np.float32, 1, "F"), (np.uint16, 3, "RGB"), (np.float32, 4, "RGBA")]
    for dtype, channels, mode in cases:
        pixels = noise(3, 4, channels, dtype=dtype)
        image = to_pil(Picture(pixels))
        assert (image.mode, image.size) == (mode, (4, 3))
        if mode in ("I;16", "F"):
            np.testing.assert_array_equal(np.asarray(image), pixels[..., 0])


# Layouts of TIFF that Pillow reads wrongly, or rounds


def tiff(
    pixels: np.ndarray, photometric: int, order: str, *, planar: int = 1, alpha: int | None = None
) -> bytes:
    """An uncompressed TIFF file of unsigned samples ``(H, W, C)``, in any byte order and planar layout."""
    height, width, channels = pixels.shape
    ordered = pixels.astype(pixels.dtype.newbyteorder(order))
    planes = [ordered] if planar == 1 else [ordered[..., channel] for channel in range(channels)]
    data = b"".join(plane.tobytes() for plane in planes)
    starts = [8 + index * len(data) // len(planes) for index in range(len(planes))]
    tags = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [8 * pixels.itemsize] * channels),
        259: ("H", [1]), 262: ("H", [photometric]), 273: ("I", starts), 277: ("H", [channels]),
        278: ("I", [height]), 279: ("I", [len(data) // len(planes)] * len(planes)), 284: ("H", [planar]),
        **({} if alpha is None else {338: ("H", [alpha])}),
    }  # fmt: skip
    place = 8 + len(data) + len(data) % 2
    rest, entries = place + 2 + 12 * len(tags) + 4, b""
    tail = b""
    for tag, (kind, values) in tags.items():
        value = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(value) > 4:
            value, tail = struct.pack(f"{order}I", rest + len(tail)), tail + value
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + value.ljust(
            4, b"\0"
        )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
    directory = struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
    return head + data.ljust(place - 8, b"\0") + directory + tail


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [1, 2])
@pytest.mark.parametrize("channels", [3, 4])
def test_every_layout_of_deep_tiff_is_read(tmp_path: Path, order: str, planar: int, channels: int) -> None:
    pixels = noise(5, 7, channels, dtype=np.uint16)
    data = tiff(pixels, 2, order, planar=planar, alpha=2 if channels == 4 else None)
    (tmp_path / "a.tif").write_bytes(data)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)


@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_premultiplied_alpha_is_divided_out(tmp_path: Path, order: str) -> None:
    pixels = noise(5, 7, 4, dtype=np.uint16)
    pixels[0, 0], pixels[0, 1, 3], pixels[0, 2, 3] = 0, 65535, 300
    premultiplied = pixels.copy()
    shares = pixels[..., 3:].astype(float) / 65535
    premultiplied[..., :3] = np.rint(pixels[..., :3] * shares)
    (tmp_path / "a.tif").write_bytes(tiff(premultiplied, 2, order, alpha=1))
    again = read_picture(tmp_path / "a.tif").pixels
    np.testing.assert_array_equal(again[..., 3], pixels[..., 3])
    np.testing.assert_allclose(again[..., :3] * shares, premultiplied[..., :3], atol=0.51)


def test_grey_with_zero_for_white_is_turned_round(tmp_path: Path) -> None:
    pixels = noise(5, 7, 1, dtype=np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(pixels, 0, "<"))
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, 65535 - pixels)


def test_deep_cmyk_says_that_it_is_rounded(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(noise(5, 7, 4, dtype=np.uint16), 5, "<"))
    assert "its 16-bit samples are rounded to 8 bits" in read_picture(tmp_path / "a.tif").notices


# Alpha


def test_invisible_colors_are_replaced_by_visible_neighbours() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = (200, 100, 50, 255)
    pixels[0, 2] = (1, 2, 3, 1)  # nearly invisible is still visible
    colors = extend_colors(pixels)
    assert colors[:, :2].reshape(-1, 3).tolist() == [[200, 100, 50]] * 8
    assert colors[0, 2].tolist() == [1, 2, 3]
    assert colors[1, 3].tolist() == [1, 2, 3]  # of its block of 2x2
    # Of the three such blocks that see anything, two weigh 255 and one 1: (2 * 255 * 200 + 1) / 511 = 199.6.
    assert colors[3, 3].tolist() == [200, 100, 50]


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_extended_colors_stay_within_the_visible_ones(height: int, width: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(50, 60, (height, width, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(generator.random((height, width)) < 0.2, 255, 0)
    pixels[pixels[..., 3] == 0] = 0
    colors = extend_colors(pixels)
    visible = pixels[..., 3] > 0
    np.testing.assert_array_equal(colors[visible], pixels[visible][:, :3])
    if visible.any():
        assert colors.min() >= 50 and colors.max() < 60


def test_colors_are_extended_alike_whatever_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(37, 23, 4)
    pixels[3:30, 5:20] = 0
    at_once = extend_colors(pixels)
    monkeypatch.setattr(pixels_module, "_BAND", 4)
    np.testing.assert_array_equal(extend_colors(pixels), at_once)


def test_laying_on_white() -> None:
    pixels = np.array([[[10, 255], [10, 0], [0, 51]]], np.uint8)  # 51 = 0.2 * 255
    assert join_alpha(pixels)[..., 0].tolist() == [[10, 255, 204]]


def test_grey_is_seen_in_rgb() -> None:
    pixels = np.repeat(noise(3, 4, 1), 3, axis=2)
    assert is_grey(pixels) and is_grey(pixels[..., :1])
    pixels[0, 0, 2] ^= 1
    assert not is_grey(pixels)


# Metadata


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    stored = Image.fromarray(noise(7, 9, 3))
    stored.save(tmp_path / "a.png", exif=exif(orientation), dpi=(100, 200))
    picture = read_picture(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        upright = ImageOps.exif_transpose(image)  # Pillow's own as the reference
    np.testing.assert_array_equal(picture.pixels, np.asarray(upright))
    assert 0x0112 not in parsed(picture.exif)
    expected = (200, 100) if orientation > 4 else (100, 200)
    assert picture.dpi == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("with_exif", [False, True])
def test_no_resolution_is_made_up(tmp_path: Path, suffix: str, with_exif: bool) -> None:
    block = Image.Exif()
    block[MAKER] = "Maker"
    Image.fromarray(noise(7, 9, 3)).save(tmp_path / f"a{suffix}", **({"exif": block} if with_exif else {}))
    assert read_picture(tmp_path / f"a{suffix}").dpi is None
    if suffix == ".jpg" and with_exif:
        block[X_RESOLUTION] = block[X_RESOLUTION + 1] = 150.0
        block[X_RESOLUTION + 14] = 2  # the unit: inches
        Image.fromarray(noise(7, 9, 3)).save(tmp_path / "b.jpg", exif=block)
        assert read_picture(tmp_path / "b.jpg").dpi == (150, 150)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_metadata_survives_enlarging(tmp_path: Path, suffix: str, dtype: type) -> None:
    stored = Image.fromarray(noise(7, 9, 3))
    stored.save(tmp_path / "a.jpg", exif=exif(6), icc_profile=ICC, dpi=(72, 72), xmp=XMP % 6)
    picture = read_picture(tmp_path / "a.jpg").enlarged(noise(36, 28, 3, dtype=dtype))
    write_picture(picture, tmp_path / f"b{suffix}")
    again = read_picture(tmp_path / f"b{suffix}")
    assert again.icc_profile == ICC
    assert again.xmp == XMP % 1
    block = parsed(again.exif)
    assert block[MAKER] == "Maker"
    assert block[X_RESOLUTION] == 288
    assert block.get_ifd(0x8769)[WIDTH] == 28 and block.get_ifd(0x8769)[HEIGHT] == 36
    assert block.get_ifd(0x8825)[GPS_REFERENCE] == "N"
    if suffix not in (".webp", ".avif"):  # these have no field for it
        assert again.dpi == pytest.approx((288, 288), abs=0.02)


def png_with(chunks: list[tuple[bytes, bytes]]) -> bytes:
    file = io.BytesIO()
    pixels = noise(4, 5, 3)
    writer = PngWriter(file, pixels.shape, pixels.dtype, chunks=chunks)
    writer.write(pixels)
    writer.close()
    return file.getvalue()


COLOR = [(b"cICP", bytes([9, 16, 0, 1])), (b"gAMA", struct.pack(">I", 100000)), (b"cHRM", bytes(range(32)))]


def test_png_color_chunks_survive_or_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_with([*COLOR, (b"tEXt", b"Title\0x")]))
    picture = read_picture(tmp_path / "a.png")
    assert list(picture.png_color) == COLOR
    write_picture(picture.enlarged(noise(16, 20, 3)), tmp_path / "b.png")
    assert list(read_picture(tmp_path / "b.png").png_color) == COLOR
    assert cannot_keep(picture, "b.png") == []
    assert "taken for sRGB" in cannot_keep(picture, "b.jpg")[0]


def test_a_broken_exif_block_costs_the_block_only(tmp_path: Path) -> None:
    Image.fromarray(noise(7, 9, 3)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.pixels.shape == (7, 9, 3)
    assert picture.exif is None


def test_what_a_format_cannot_hold_is_said() -> None:
    deep = Picture(noise(2, 2, 4, dtype=np.uint16), icc_profile=ICC)
    assert cannot_keep(deep, "a.png") == [] == cannot_keep(deep, "a.tiff")
    assert len(cannot_keep(deep, "a.jpg")) == 2
    assert "256 colours" in cannot_keep(replace(deep, pixels=noise(2, 2, 3)), "a.gif")[0]
    assert "colour profile" in cannot_keep(replace(deep, pixels=noise(2, 2, 3)), "a.bmp")[0]
    assert "float" in cannot_keep(replace(deep, pixels=noise(2, 2, 3, dtype=np.float32)), "a.png")[0]
    assert cannot_keep(replace(deep, pixels=noise(2, 2, 1, dtype=np.float32)), "a.tif") == []


def test_metadata_too_long_for_jpeg_is_dropped_and_said(tmp_path: Path) -> None:
    picture = Picture(noise(4, 4, 3), xmp=b"x" * 70000, exif=exif().tobytes())
    assert cannot_keep(picture, "a.jpg") == ["xmp too large for JPEG: dropped"]
    assert cannot_keep(replace(picture, xmp=None, dpi=(7e4, 72)), "a.jpg") == [
        "dpi too large for JPEG: dropped"
    ]
    write_picture(picture, tmp_path / "a.jpg")
    again = read_picture(tmp_path / "a.jpg")
    assert again.xmp is None and again.exif is not None
    write_picture(picture, tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").xmp == picture.xmp


def test_metadata_that_makes_no_sense_costs_itself_only(tmp_path: Path) -> None:
    block = struct.pack(">4sIH", b"MM\0*", 8, 1) + struct.pack(">HHI4sI", X_RESOLUTION, 2, 4, b"abc", 0)
    Image.fromarray(noise(7, 9, 3)).save(tmp_path / "a.png", exif=block, dpi=(1e8, 1e8))
    picture = read_picture(tmp_path / "a.png")
    assert (picture.exif, picture.dpi) == (None, None)
    assert "its EXIF block is" in picture.notices[0]


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".ppm"])
def test_alpha_is_laid_on_white_where_it_cannot_be_kept(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    write_picture(Picture(pixels), tmp_path / f"a{suffix}")
    assert read_picture(tmp_path / f"a{suffix}").pixels.min() == 255


# Errors


def broken_files() -> dict[str, bytes]:
    whole = {}
    for name, options in {
        "png": {},
        "jpeg": {},
        "webp": {},
        "tiff": {"compression": "tiff_lzw"},
        "gif": {},
    }.items():
        buffer = io.BytesIO()
        Image.fromarray(noise(40, 50, 3)).save(buffer, name, **options)
        whole[name] = buffer.getvalue()
    files = {f"half.{name}": data[: len(data) // 2] for name, data in whole.items()}
    files |= {f"head.{name}": data[:20] for name, data in whole.items()}
    files["flipped.png"] = whole["png"][:200] + b"\xaa" * 50 + whole["png"][250:]
    files |= {"empty.png": b"", "text.png": b"not an image at all", "zeros.jpg": bytes(1000)}
    return files


@pytest.mark.parametrize("name", broken_files())
def test_broken_files_give_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(broken_files()[name])
    with pytest.raises(ImageError, match=f"{name}: expected") as caught:
        read_picture(tmp_path / name)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damaged_bytes_give_a_picture_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["png", "jpeg", "tiff", "gif", "bmp", "webp", "ppm", "tga"]))
    Image.fromarray(noise(12, 9, 3)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 400) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / f"a.{kind}"
    path.write_bytes(content)
    try:
        picture = read_picture(path)
    except ImageError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert picture.pixels.ndim == 3


def test_a_missing_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_installed", set)
    (tmp_path / "a.heic").write_bytes(b"no picture that Pillow knows")
    with pytest.raises(ImageError, match=r"a\.heic: expected .* needs a plugin: pip install pillow-heif"):
        read_picture(tmp_path / "a.heic")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png: expected an image file, got no such file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(ImageError, match="expected an image file, got a folder"):
        read_picture(tmp_path)


def test_decompression_bombs_stop_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20000, 10000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(ImageError, match=r"bomb\.png: expected at most 178,956,970 pixels"):
        read_picture(tmp_path / "bomb.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 5)
    with pytest.raises(ImageError, match="expected at most 5 pixels, got 3x2"):
        from_pil(Image.new("L", (3, 2)))


def test_threads_leave_pillows_limit_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)

    def read(index: int) -> None:
        read_picture(tmp_path / "a.png", max_pixels=2000 + index)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(200)))
    assert Image.MAX_IMAGE_PIXELS is None


def test_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: expected an image file, got a pipe or device"):
        read_picture(tmp_path / "a.png")


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="at least one pixel, got 0x3"):
        from_pil(Image.new("L", (0, 3)))


def test_a_lazily_opened_broken_image_gives_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "half.png").write_bytes(broken_files()["half.png"])
    with Image.open(tmp_path / "half.png") as image, pytest.raises(ImageError, match="can be decoded"):
        from_pil(image)


@pytest.mark.parametrize("name", ["a.xyz", "a.pdf", "a", "a.psd"])
def test_formats_that_cannot_be_written_are_refused(name: str) -> None:
    with pytest.raises(ImageError, match=f"{name}: expected a suffix of AVIF, BMP"):
        writable_format(name)


def test_sizes_a_format_cannot_hold_are_refused() -> None:
    check_fits("a.png", 4, 80000)
    with pytest.raises(ImageError, match=r"a\.jpg: JPEG holds at most 65500 pixels a side, got 80000x4"):
        check_fits("a.jpg", 4, 80000)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.webp"
    write_picture(Picture(noise(4, 4, 3)), path)
    before = path.read_bytes()

    def fail(image: Image.Image, file: io.BufferedWriter, **options: object) -> None:
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(ImageError, match=r"a\.webp: cannot be written: No space left on device"):
        write_picture(Picture(noise(5, 5, 3)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.png: cannot be written: .*No such file"):
        write_picture(Picture(noise(4, 4, 3)), tmp_path / "none" / "a.png")


def test_arrays_are_fit_for_torch(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "a.png", exif=exif(3))
    pixels = read_picture(tmp_path / "a.png").pixels
    assert torch.from_numpy(np.array(pixels)).shape == (4, 4, 3)
    assert pixels.flags.c_contiguous


def test_a_suffix_of_a_codestream_gets_one(tmp_path: Path) -> None:
    for suffix, head in ((".j2k", b"\xff\x4f\xff\x51"), (".jp2", b"\x00\x00\x00\x0cjP  ")):
        write_picture(Picture(np.zeros((20, 20, 3), np.uint8)), tmp_path / f"a{suffix}")
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(head)
    with pytest.raises(ImageError, match=r"a\.pfm: expected a suffix of"):
        write_picture(Picture(np.zeros((20, 20, 3), np.uint8)), tmp_path / "a.pfm")


def test_quality_is_the_encoders(tmp_path: Path) -> None:
    picture = Picture(noise(32, 32, 3))
    for suffix in (".jpg", ".webp"):
        names = ("default", "high", "low")
        for name, quality in zip(names, (None, 95, 20), strict=True):
            write_picture(picture, tmp_path / f"{name}{suffix}", quality=quality)
        default, high, low = ((tmp_path / f"{name}{suffix}").read_bytes() for name in names)
        assert default == high and len(low) < len(high) / 2
    write_picture(picture, tmp_path / "a.png", quality=20)
    assert np.array_equal(read_picture(tmp_path / "a.png").pixels, picture.pixels)
    with pytest.raises(ValueError, match="quality must lie from 1 to 100, got 0"):
        write_picture(picture, tmp_path / "a.jpg", quality=0)
