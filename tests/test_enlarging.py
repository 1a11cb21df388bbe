"""One file to another: sizes, memory, provenance, what is dropped."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from huggingface_hub import HfApi
from PIL import ExifTags, Image, ImageCms

from sr_hub import cli
from sr_hub.animation import read_animation
from sr_hub.encoding import write_picture
from sr_hub.enlarging import Enlarger
from sr_hub.folders import Job, fingerprint
from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError, Picture, read_picture
from sr_hub.inference import upscale
from sr_hub.loopback_hub import LoopbackHub
from sr_hub.model_card import CardOptions
from sr_hub.pretrained import DEFAULT_FIDELITY
from sr_hub.provenance import SOURCE_TYPE, add_provenance, hash_weights, read_provenance
from sr_hub.publishing import PushOptions, push_folder
from sr_hub.settings import Limits, Model, Settings

# Older versions of Pillow round how long a frame of an animated PNG is shown.
PARTS_OF_A_MILLISECOND = tuple(map(int, PIL.__version__.split(".")[:2])) >= (12, 1)
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def generator() -> SRGenerator:
    torch.manual_seed(0)
    return SRGenerator(features=4, blocks=1)


def enlarge(
    generator: SRGenerator,
    source: Path,
    target: Path,
    settings: Settings | None = None,
    limits: Limits | None = None,
) -> tuple[str, ...]:
    """What is said; the result is at `target`."""
    enlarger = Enlarger(generator, settings, Model("tiny"), limits)
    job = Job(source.name, source, target)
    return enlarger.write(job, enlarger.make(job, enlarger.read(job))).notices


def photo(path: Path, height: int = 12, width: int = 16, channels: int = 3, **metadata: object) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    write_picture(replace(Picture(pixels), **metadata), path)  # type: ignore[arg-type]
    return path


# Size


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), (48, 64)),
        (Settings(scale=2.5), (30, 40)),
        (Settings(scale=8), (96, 128)),
        (Settings(scale=0.01), (1, 1)),
        (Settings(width=40), (30, 40)),
        (Settings(height=30), (30, 40)),
        (Settings(width=10, height=7), (7, 10)),
    ],
)
def test_any_size(
    tmp_path: Path, generator: SRGenerator, settings: Settings, expected: tuple[int, int]
) -> None:
    source = photo(tmp_path / "a.png", dpi=(100.0, 100.0))
    enlarge(generator, source, tmp_path / "b.png", settings)
    result = read_picture(tmp_path / "b.png")
    assert result.pixels.shape == (*expected, 3)
    assert result.dpi is not None and result.dpi[0] == pytest.approx(100 * expected[1] / 16, abs=0.02)


def test_a_resolution_that_no_longer_fits_is_said(tmp_path: Path, generator: SRGenerator) -> None:
    source = photo(tmp_path / "a.png", dpi=(30000.0, 30000.0))
    assert enlarge(generator, source, tmp_path / "b.jpg") == ("dpi too large for JPEG: dropped",)
    assert enlarge(generator, source, tmp_path / "b.png") == ()


def test_another_size_is_the_model_s_result_resized(tmp_path: Path, generator: SRGenerator) -> None:
    source = photo(tmp_path / "a.png")
    enlarge(generator, source, tmp_path / "b.png", Settings(scale=1, precision="fp32"))
    sr = upscale(generator, np.asarray(Image.open(source)), precision="fp32")
    expected = Image.fromarray(sr).resize((16, 12), Image.Resampling.BICUBIC)  # Pillow's own, antialiased too
    inner = np.s_[2:-2, 2:-2]  # beyond the border, where Pillow repeats nothing and MATLAB mirrors
    difference = read_picture(tmp_path / "b.png").pixels[inner].astype(int) - np.asarray(expected)[inner]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("wrong", [{"scale": 2.0, "width": 9}, {"scale": 0}, {"width": -1}])
def test_wrong_sizes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="scale cannot be asked for together|must be above 0"):
        Settings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("scale", [None, 3.0])
def test_little_memory_gives_the_same_picture_in_strips(
    tmp_path: Path, generator: SRGenerator, suffix: str, scale: float | None
) -> None:
    source = photo(tmp_path / "a.png", 150, 40, 3 if suffix == ".jpg" else 4)
    settings = Settings(precision="fp32", scale=scale)
    results = []
    for memory in (2**30, 400_000):
        enlarge(generator, source, tmp_path / f"b{suffix}", settings, Limits(memory=memory))
        results.append(read_picture(tmp_path / f"b{suffix}").pixels.astype(int))
    difference = np.abs(results[0] - results[1])
    assert difference.max() <= (4 if suffix == ".jpg" else 1) and difference.mean() < 0.02


def test_a_result_that_needs_too_much_memory_is_refused(tmp_path: Path, generator: SRGenerator) -> None:
    source = photo(tmp_path / "a.png", 200, 200)
    with pytest.raises(ImageError, match=r"b\.webp: WEBP needs 0\.01 GiB of memory for 800x800"):
        enlarge(generator, source, tmp_path / "b.webp", limits=Limits(memory=10**6))
    assert not (tmp_path / "b.webp").exists()


def test_an_input_that_needs_too_much_memory_is_refused_by_its_header(
    tmp_path: Path, generator: SRGenerator
) -> None:
    Image.new("RGBA", (2000, 1500)).save(tmp_path / "a.png")
    with pytest.raises(
        ImageError, match=r"a\.png: 2000x1500 pixels need 0\.03 GiB .*, expected at most 0\.02"
    ):
        enlarge(generator, tmp_path / "a.png", tmp_path / "b.png", limits=Limits(memory=2**24))


def test_frames_that_need_too_much_memory_are_refused(tmp_path: Path, generator: SRGenerator) -> None:
    frames = [Image.new("L", (100, 100), value) for value in range(10)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"b\.gif: 10 frames need 0\.01 GiB of memory for 400x400"):
        enlarge(
            generator, tmp_path / "a.gif", tmp_path / "b.gif", Settings(animated=True), Limits(memory=10**7)
        )


def test_frames_are_refused_before_they_are_read(
    tmp_path: Path, generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [Image.new("L", (400, 300), value) for value in range(40)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    monkeypatch.setattr("sr_hub.enlarging.read_animation", None)
    animated, limits = Settings(animated=True), Limits(memory=10**7)
    with pytest.raises(ImageError, match=r"a\.gif: 40 frames of 400x300 need 0\.02 GiB of memory to be read"):
        enlarge(generator, tmp_path / "a.gif", tmp_path / "b.gif", animated, limits)
    with pytest.raises(ImageError, match=r"b\.gif: 40 frames need"):
        enlarge(generator, tmp_path / "a.gif", tmp_path / "b.gif", animated, Limits(memory=2 * 10**8))
    job = Job("a.gif", tmp_path / "a.gif", tmp_path / "b.gif")
    assert Enlarger(generator, animated).weigh(job) > 39 * Enlarger(generator).weigh(job) / 4


def test_areas_that_take_minutes_are_refused(tmp_path: Path, generator: SRGenerator) -> None:
    Image.new("RGB", (2100, 2000)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="JPEG2000 is written up to 67,108,864 pixels, got 8400x8000"):
        enlarge(generator, tmp_path / "a.png", tmp_path / "b.jp2")


def test_the_limit_against_bombs_can_be_moved(tmp_path: Path, generator: SRGenerator) -> None:
    source = photo(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: expected at most 191 pixels, got (more|16x12)"):
        enlarge(generator, source, tmp_path / "b.png", limits=Limits(max_pixels=191))
    enlarge(generator, source, tmp_path / "b.png", limits=Limits(max_pixels=192))
    before = Image.MAX_IMAGE_PIXELS
    Image.new("1", (20000, 10000)).save(tmp_path / "large.png")
    assert read_picture(tmp_path / "large.png", max_pixels=2 * 10**8).pixels.shape == (10000, 20000, 1)
    assert before == Image.MAX_IMAGE_PIXELS


# Provenance


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_provenance_is_written_and_read_back(tmp_path: Path, generator: SRGenerator, suffix: str) -> None:
    source = photo(tmp_path / "a.png")
    settings = Settings(scale=3, ensemble=True)
    enlarge(generator, source, tmp_path / f"b{suffix}", settings)
    facts = read_provenance(tmp_path / f"b{suffix}")
    assert facts is not None
    assert (facts["name"], facts["weights_sha256"]) == ("tiny", hash_weights(generator))
    assert facts["settings"]["scale"] == 3 and facts["settings"]["ensemble"] is True
    assert facts["input_size"] == [16, 12] and len(facts["input_sha256"]) == 64
    result = read_picture(tmp_path / f"b{suffix}")
    assert result.xmp is not None and SOURCE_TYPE.encode() in result.xmp
    block = Image.Exif()
    block.load(result.exif or b"")
    assert block[0x000B].startswith("sr_hub ")


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="Title" '
    b'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    b'Iptc4xmpExt:DigitalSourceType="digitalCapture"/></rdf:RDF></x:xmpmeta>'
)


def test_provenance_joins_what_stands_in_xmp_and_replaces_its_own(
    tmp_path: Path, generator: SRGenerator
) -> None:
    from xml.etree import ElementTree

    source = photo(tmp_path / "a.png", xmp=XMP)
    enlarge(generator, source, tmp_path / "b.png")
    enlarge(generator, tmp_path / "b.png", tmp_path / "c.png", Settings(scale=1))
    packet = read_picture(tmp_path / "c.png").xmp or b""
    assert b'dc:title="Title"' in packet and b"digitalCapture" not in packet
    assert packet.count(b"<sr_hub:provenance>") == packet.count(b"DigitalSourceType>http") == 1
    ElementTree.fromstring(packet)  # well-formed
    assert (read_provenance(tmp_path / "c.png") or {})["settings"]["scale"] == 1


@pytest.mark.parametrize("field", ["xmp", "exif"])
def test_a_full_block_of_jpeg_is_kept_without_provenance(
    tmp_path: Path, generator: SRGenerator, field: str
) -> None:
    if field == "xmp":
        block = XMP + b" " * (65_000 - len(XMP))
    else:
        exif = Image.Exif()
        exif[ExifTags.Base.Artist], exif[ExifTags.Base.ImageDescription] = "Ann", "d" * 65_440
        block = exif.tobytes()
    Image.new("RGB", (6, 5)).save(tmp_path / "a.jpg", **{field: block})
    said = enlarge(generator, tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert said == (f"{field} has no room for the provenance, which is left out there",)
    with Image.open(tmp_path / "b.jpg") as result:
        if field == "xmp":
            assert b'dc:title="Title"' in result.info["xmp"] and b"sr_hub" not in result.info["xmp"]
        else:
            assert result.getexif()[ExifTags.Base.Artist] == "Ann"
    assert (read_provenance(tmp_path / "b.jpg") is None) == (field == "xmp")
    assert enlarge(generator, tmp_path / "a.jpg", tmp_path / "b.png") == ()  # which has room
    assert read_provenance(tmp_path / "b.png") is not None


def test_no_provenance_leaves_no_trace(tmp_path: Path, generator: SRGenerator) -> None:
    enlarge(generator, photo(tmp_path / "a.png"), tmp_path / "b.png", Settings(provenance=False))
    assert read_provenance(tmp_path / "b.png") is None
    assert b"sr_hub" not in (tmp_path / "b.png").read_bytes()


def test_inspect_prints_the_provenance(
    tmp_path: Path, generator: SRGenerator, capsys: pytest.CaptureFixture[str]
) -> None:
    source = photo(tmp_path / "a.png")
    enlarge(generator, source, tmp_path / "b.jpg", Settings(scale=2))
    assert cli.main(["inspect", str(tmp_path / "b.jpg")]) == 0
    out = capsys.readouterr().out
    assert hash_weights(generator) in out and "tiny" in out
    assert cli.main(["inspect", str(source)]) == 2
    assert "a.png: expected a picture that sr-hub wrote" in capsys.readouterr().err


def test_inspect_reads_results_of_any_size(
    tmp_path: Path, generator: SRGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarge(generator, photo(tmp_path / "a.png"), tmp_path / "b.png")
    monkeypatch.setattr("sr_hub.images.MAX_PIXELS", 1000)
    assert read_provenance(tmp_path / "b.png")


def test_inspect_prints_nothing_that_moves_the_cursor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = add_provenance(Picture(np.zeros((4, 4, 3), np.uint8)), {"model": "x\x1b]0;a\x07\nlicense  CC0"})
    write_picture(picture, tmp_path / "a.png")
    assert cli.main(["inspect", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\nlicense" not in out


def test_broken_provenance_is_named(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", xmp=b"<sr_hub:provenance>{</sr_hub:provenance>")
    with pytest.raises(ImageError, match=r"a\.png: its provenance is broken"):
        read_provenance(tmp_path / "a.png")


# Stripping


def test_strip_drops_everything(tmp_path: Path, generator: SRGenerator) -> None:
    block = Image.Exif()
    block[0x010F] = "Maker"
    source = photo(tmp_path / "a.png", xmp=XMP, icc_profile=ICC, exif=block.tobytes(), dpi=(72.0, 72.0))
    enlarge(generator, source, tmp_path / "b.png", Settings(strip=True))
    with Image.open(tmp_path / "b.png") as image:
        assert image.info == {}


def test_stripped_frames_become_srgb(tmp_path: Path, generator: SRGenerator) -> None:
    swapped = ICC.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    frames = [Image.new("RGB", (6, 6), color) for color in ("red", "lime")]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], icc_profile=swapped)
    enlarge(generator, tmp_path / "a.png", tmp_path / "b.png", Settings(strip=True, animated=True))
    first, second = (frame[12, 12, :3].astype(int) for frame in read_animation(tmp_path / "b.png").frames)
    assert first[2] > 240 > 15 > first[0] and second[1] > 240 > 15 > second[0]


def test_stripped_colors_become_srgb(tmp_path: Path, generator: SRGenerator) -> None:
    # A profile whose primaries are those of sRGB with red and blue exchanged, so red means blue.
    swapped = ICC.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    pixels = np.zeros((6, 6, 4), np.uint8)
    pixels[..., 0], pixels[..., 3] = 255, 200
    write_picture(Picture(pixels, icc_profile=swapped), tmp_path / "a.png")
    enlarge(generator, tmp_path / "a.png", tmp_path / "b.png", Settings(strip=True))
    red, green, blue, alpha = (int(value) for value in read_picture(tmp_path / "b.png").pixels[12, 12])
    assert blue > 240 and red < 15 and green < 15 and alpha == 200


P3 = (b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
GAMMA = struct.Struct(">I")


@pytest.mark.parametrize(
    ("chunks", "kept"),
    [
        ([P3], True),
        ([(b"gAMA", GAMMA.pack(100000))], True),
        ([(b"cICP", bytes((12, 13, 0, 1)))], True),
        ([(b"gAMA", GAMMA.pack(45455))], False),
        ([(b"gAMA", GAMMA.pack(45454))], False),
        ([(b"cICP", bytes((1, 13, 0, 1))), P3], False),
        ([(b"sRGB", b"\0"), P3], False),
    ],
)
def test_chunks_of_other_colors_are_kept_and_said(
    tmp_path: Path, generator: SRGenerator, chunks: list[tuple[bytes, bytes]], kept: bool
) -> None:
    source = photo(tmp_path / "a.png", png_color=tuple(chunks))
    said = enlarge(generator, source, tmp_path / "b.png", Settings(strip=True))
    assert ("its colour chunks are kept: they tell of other colours than sRGB's" in said) == kept
    assert read_picture(tmp_path / "b.png").png_color == (tuple(chunks) if kept else ())
    lost = "JPEG holds no colour chunks of PNG: the colours are taken for sRGB"
    for settings in (Settings(), Settings(strip=True)):
        assert (lost in enlarge(generator, source, tmp_path / "b.jpg", settings)) == kept


def test_deep_pictures_keep_the_profile_and_say_so(tmp_path: Path, generator: SRGenerator) -> None:
    write_picture(Picture(np.zeros((4, 4, 3), np.uint16), icc_profile=ICC), tmp_path / "a.png")
    said = enlarge(generator, tmp_path / "a.png", tmp_path / "b.png", Settings(strip=True))
    assert "the colour profile is kept" in said[0]
    assert read_picture(tmp_path / "b.png").icc_profile == ICC


# Animations


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_all_frames_are_enlarged(tmp_path: Path, generator: SRGenerator, suffix: str) -> None:
    colors = ["red", "lime", "blue"]
    frames = [Image.new("RGBA", (6, 5), color) for color in colors]
    frames[0].save(
        tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], duration=[100, 200, 300], loop=2
    )
    said = enlarge(generator, tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", Settings(animated=True))
    assert [text for text in said if "256 colours" not in text] == []
    animation = read_animation(tmp_path / f"b{suffix}")
    assert animation.durations == [100, 200, 300]
    assert animation.loops == (3 if suffix == ".gif" else 2)  # GIF counts how often it is shown again
    for frame, color in zip(animation.frames, colors, strict=True):
        assert frame.shape == (20, 24, 4)
        still = upscale(generator, np.asarray(Image.new("RGB", (6, 5), color)))
        assert np.abs(frame[..., :3].astype(int) - still).mean() < 20
    if suffix != ".gif":
        assert read_provenance(tmp_path / f"b{suffix}") is not None
    assert "only the first" in enlarge(generator, tmp_path / f"a{suffix}", tmp_path / "c.png")[0]


def test_frames_of_a_sixtieth_of_a_second_stay_so(tmp_path: Path, generator: SRGenerator) -> None:
    frames = [Image.new("RGB", (6, 5), color) for color in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=1000 / 60)
    assert enlarge(generator, tmp_path / "a.png", tmp_path / "b.png", Settings(animated=True)) == ()
    expected = 1000 / 60 if PARTS_OF_A_MILLISECOND else 17
    for name in ("a.png", "b.png"):
        assert read_animation(tmp_path / name).durations == pytest.approx([expected] * 3, abs=1e-6)
    enlarge(generator, tmp_path / "a.png", tmp_path / "b.webp", Settings(animated=True))
    assert read_animation(tmp_path / "b.webp").durations == [17, 17, 17]


def test_deep_frames_are_rounded_and_said(tmp_path: Path, generator: SRGenerator) -> None:
    frames = [Image.fromarray(np.full((6, 5), value, np.uint16)) for value in (32767, 1000)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    said = enlarge(generator, tmp_path / "a.png", tmp_path / "b.png", Settings(animated=True))
    assert said == ("frames are written with 8 bits per sample: 16-bit samples are rounded",)
    first, second = (frame[0, 0] for frame in read_animation(tmp_path / "a.png").frames)
    assert first.tolist() == [127, 127, 127, 255] and second.tolist() == [4, 4, 4, 255]


def test_a_gif_that_is_shown_once_stays_so(tmp_path: Path, generator: SRGenerator) -> None:
    frames = [Image.new("L", (3, 3), value) for value in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    enlarge(generator, tmp_path / "a.gif", tmp_path / "b.gif", Settings(animated=True))
    for name in ("a.gif", "b.gif"):
        assert b"NETSCAPE" not in (tmp_path / name).read_bytes()
    assert read_animation(tmp_path / "b.gif").loops == 1


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_a_picture_for_programs_without_animation_is_no_frame(
    tmp_path: Path, generator: SRGenerator, suffix: str
) -> None:
    still, *frames = (Image.new("RGB", (6, 4), color) for color in ("black", "red", "blue"))
    still.save(
        tmp_path / "a.png", save_all=True, default_image=True, append_images=frames, duration=[100, 300]
    )
    enlarge(generator, tmp_path / "a.png", tmp_path / f"b{suffix}", Settings(animated=True))
    animation = read_animation(tmp_path / f"b{suffix}")
    assert animation.poster == (suffix == ".png")
    assert animation.durations[animation.poster :] == [100, 300]
    colors = [frame[8, 12, :3].argmax() for frame in animation.frames[animation.poster :]]
    assert colors == [0, 2] and len(animation.frames) == 2 + animation.poster
    if animation.poster:
        assert animation.frames[0][..., :3].max() < 60


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_frames_are_turned_upright(tmp_path: Path, generator: SRGenerator, suffix: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    for frame in frames:
        frame.paste((255, 255, 255), (0, 0, 3, 4))  # the left half, which orientation 6 turns to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], exif=exif, **options)
    enlarge(generator, tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", Settings(animated=True))
    red, blue = read_animation(tmp_path / f"b{suffix}").frames
    assert red.shape == (24, 16, 4)
    assert red[:8, :, :3].min() > 150 and red[16:, :, 1:3].max() < 100 and blue[16:, :, :2].max() < 100


def test_frames_need_a_format_that_holds_them(tmp_path: Path, generator: SRGenerator) -> None:
    frames = [Image.new("L", (3, 3), value) for value in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="JPEG holds one frame"):
        enlarge(generator, tmp_path / "a.gif", tmp_path / "b.jpg", Settings(animated=True))
    with pytest.raises(ImageError, match=r"a\.gif: expected at most 17 pixels in all frames, got 2 of 3x3"):
        enlarge(
            generator, tmp_path / "a.gif", tmp_path / "b.gif", Settings(animated=True), Limits(max_pixels=17)
        )
    assert not (tmp_path / "b.gif").exists()


# Consistency and ensemble


def test_consistency_is_reported_and_reached(tmp_path: Path, generator: SRGenerator) -> None:
    smooth = np.asarray(Image.effect_noise((8, 8), 60).resize((32, 32), Image.Resampling.BICUBIC))
    Image.fromarray(smooth).save(tmp_path / "a.png")
    enlarger = Enlarger(generator, Settings(consistency=4))
    job = Job("a.png", tmp_path / "a.png", tmp_path / "b.png")
    share = enlarger.write(job, enlarger.make(job, enlarger.read(job))).consistent
    assert share is not None and share > 0.95

    cut = np.full((32, 32, 4), 255, np.uint8)
    cut[..., :3] = smooth[..., None]
    cut[:, :16] = 0  # colours that are never seen, and not given back
    Image.fromarray(cut).save(tmp_path / "cut.png")
    job = Job("cut.png", tmp_path / "cut.png", tmp_path / "d.png")
    share = enlarger.write(job, enlarger.make(job, enlarger.read(job))).consistent
    assert share is not None and share > 0.9


def test_every_setting_is_another_result() -> None:
    torch.manual_seed(0)
    network = SRGenerator(features=4, blocks=1)
    variants = [
        Settings(),
        Settings(precision="fp32"),
        Settings(scale=2),
        Settings(width=5),
        Settings(height=5),
        Settings(ensemble=True),
        Settings(consistency=1),
        Settings(strip=True),
        Settings(provenance=False),
        Settings(animated=True),
    ]
    assert len({Enlarger(network, settings).key for settings in variants}) == len(variants)
    assert Enlarger(network, limits=Limits(tile_size=9)).key == Enlarger(network).key


def test_the_flags_reach_the_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "model")
    source = photo(tmp_path / "a.png")
    flags = ["--scale", "3", "--ensemble", "--consistency", "2", "--max-memory", "1G", "--max-pixels", "5000"]
    code = cli.main(
        ["upscale", str(source), str(tmp_path / "b.png"), "--model", str(tmp_path / "model"), *flags]
    )
    assert code == 0
    facts = read_provenance(tmp_path / "b.png") or {}
    assert facts["name"] == "model"
    assert facts["settings"] | {"scale": 3, "ensemble": True, "consistency": 2} == facts["settings"]
    assert json.dumps(facts)
    capsys.readouterr()
    for wrong in (["--scale", "0"], ["--max-memory", "much"], ["--consistency", "-1"], ["--width", "0"]):
        assert cli.main(["upscale", str(source), str(tmp_path / "c.png"), *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err


def test_a_model_of_the_hub_is_named_with_its_commit_and_hashes(
    tmp_path: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, card = tmp_path / "family", CardOptions(license="mit", data_statement="Own photos, CC0.")
    SRGenerator(features=4, blocks=1).save_pretrained(folder, fidelity=SRGenerator(features=4, blocks=1))
    push_folder(folder, "me/tiny", PushOptions(token=hub.token), card)
    commit = HfApi(endpoint=hub.url, token=hub.token).model_info("me/tiny").sha
    source = photo(tmp_path / "a.png")
    for name, revision in (("me/tiny", commit), (str(folder), None)):
        assert cli.main(["upscale", str(source), str(tmp_path / "b.png"), "--model", name]) == 0
        facts = read_provenance(tmp_path / "b.png") or {}
        assert (facts["name"], facts["revision"]) == (name if revision else "family", revision)
        assert facts["fidelity"] == DEFAULT_FIDELITY
        assert facts["files"] == {
            name: fingerprint(folder / name) for name in ("model.safetensors", "fidelity.safetensors")
        }
    assert cli.main(["inspect", str(tmp_path / "b.png")]) == 0
    assert fingerprint(folder / "model.safetensors") in capsys.readouterr().out
    assert cli.main(
        ["upscale", str(source), str(tmp_path / "c.png"), "--model", "me/tiny", "--revision", "no"]
    )
    assert "has no revision 'no'" in capsys.readouterr().err
