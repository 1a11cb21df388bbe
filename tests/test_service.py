"""What the page does: the command line's results, limits, stopping, models, many people at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from sr_hub import cli
from sr_hub.consistency import given_back, share_consistent
from sr_hub.encoding import write_picture
from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError, Picture, read_picture
from sr_hub.pretrained import DEFAULT_MODEL, bundled_models
from sr_hub.service import Limits, Service, Settings, Stopped


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with both ends of a tiny family."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        ends.append(SRGenerator(features=8, blocks=2))
    ends[0].save_pretrained(folder, fidelity=ends[1])
    return str(folder)


@pytest.fixture(scope="module")
def service() -> Service:
    return Service(device="cpu")


def photo(path: Path, width: int = 40, height: int = 28, seed: int = 0, **options: object) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path, **options)
    return path


def command_line(source: Path, target: Path, model: str, *words: str) -> bytes:
    assert cli.main(["upscale", str(source), str(target), "--model", model, "--device", "cpu", *words]) == 0
    return target.read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ()),
        ({"fidelity": 0.25}, ("--fidelity", "0.25")),
        ({"fidelity": 1, "scale": 2}, ("--fidelity", "1", "--scale", "2")),
        ({"width": 100}, ("--width", "100")),
        ({"consistency": True}, ("--consistency", "4")),
    ],
)
def test_bytes_are_those_of_the_command_line(
    service: Service, model: str, tmp_path: Path, settings: dict[str, float], words: tuple[str, ...]
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    source = photo(tmp_path / "a.jpg", exif=exif, dpi=(72, 72))
    expected = command_line(source, tmp_path / "cli.png", model, *words)
    asked = Settings(model, **settings)
    outcome = service.enlarge_file(source, tmp_path / "file.png", asked)
    enlarged = service.enlarge(source, asked)
    write_picture(enlarged.picture, tmp_path / "held.png")
    assert (tmp_path / "file.png").read_bytes() == expected
    assert (tmp_path / "held.png").read_bytes() == expected
    assert outcome.source_size == (40, 28)
    assert enlarged.facts.startswith("40×28 → ") and enlarged.facts.rsplit(", ")[-1] in ("bf16", "fp32")
    assert enlarged.megapixels_per_second > 0


def test_results_above_a_strip_are_held_too(
    service: Service, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = photo(tmp_path / "a.png", 60, 80)
    whole = service.enlarge(source, Settings(model)).picture.pixels
    monkeypatch.setattr("sr_hub.enlarging._LARGEST_STRIP", 30_000)
    assert np.array_equal(service.enlarge(source, Settings(model)).picture.pixels, whole)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_blends_are_those_of_from_pretrained(service: Service, model: str, share: float) -> None:
    expected = SRGenerator.from_pretrained(model, fidelity=share).state_dict()
    for name, value in service.generator(model, share).state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert service.generator(model, share) is service.generator(model, share)


def test_facts_of_the_bundled_model(service: Service) -> None:
    facts = service.facts(DEFAULT_MODEL)
    assert facts.two_ends and facts.scale == 4 and facts.license == "apache-2.0" and facts.revision is None
    assert facts.parameters == sum(value.numel() for value in SRGenerator.from_pretrained().parameters())
    assert {claim.dataset for claim in facts.claims} >= {"Set5", "Set14", "BSD100"}


def test_fidelity_of_a_model_with_one_end_is_refused(service: Service, tmp_path: Path) -> None:
    SRGenerator(features=4, blocks=1).save_pretrained(tmp_path / "one")
    assert not service.facts(str(tmp_path / "one")).two_ends
    assert service.generator(str(tmp_path / "one"), None).scale == 4
    with pytest.raises(ValueError, match="has one end only: fidelity cannot be chosen, got 0.5"):
        service.generator(str(tmp_path / "one"), 0.5)


def test_only_allowed_models(model: str, tmp_path: Path) -> None:
    service = Service(device="cpu", models=bundled_models())
    assert service.facts(DEFAULT_MODEL).name == DEFAULT_MODEL
    source = photo(tmp_path / "a.png")
    for name in (model, "user/name", "/etc"):
        with pytest.raises(
            ValueError, match=f"model must be one of {', '.join(bundled_models())} here, got '{name}'"
        ):
            service.enlarge(source, Settings(name))
        with pytest.raises(ValueError, match="model must be one of"):
            service.generator(name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"fidelity": 1.5}, r"fidelity must lie in \[0, 1\], got 1.5"),
        ({"fidelity": float("nan")}, "fidelity must lie in"),
        ({"scale": 0}, "scale must be a number above 0, got 0"),
        ({"scale": float("inf")}, "scale must be a number above 0, got inf"),
        ({"scale": float("nan")}, "scale must be a number above 0, got nan"),
        ({"scale": 10**400}, "scale must be a number above 0, got 1000"),
        ({"width": 0}, "width must be at least 1 pixel, got 0"),
        ({"scale": 2, "width": 9}, "scale cannot be asked for together with width"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**wrong)


def bomb(path: Path, width: int, height: int) -> Path:
    """A PNG whose header claims that many pixels and that holds none."""
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
        PngImagePlugin.putchunk(file, b"IHDR", header)
        PngImagePlugin.putchunk(file, b"IDAT", b"")
    return path


def test_limits_say_what_to_do_before_anything_is_decoded(model: str, tmp_path: Path) -> None:
    service = Service(Limits(megabytes=0.1, megapixels=1, output_megapixels=4), "cpu")
    heavy = tmp_path / "heavy.png"
    heavy.write_bytes(bytes(150_000))
    with pytest.raises(
        ImageError, match=r"^heavy.png: the file has 0.1 megabytes, at most 0.1 .*: save it sm"
    ):
        service.check(heavy)
    for width, height, size in ((2000, 1000, "2.0"), (2**31 - 1, 2**31 - 1, r"\d+\.\d")):
        with pytest.raises(
            ImageError, match=rf"^b.png: the picture has {size} megapixels, at most 1 .*: shrink"
        ):
            service.check(bomb(tmp_path / "b.png", width, height))
    large = bomb(tmp_path / "large.png", 1000, 600)
    service.check(large)
    service.check(large, Settings(model, scale=2))
    for call in (service.check, service.enlarge):
        with pytest.raises(
            ImageError, match=r"^large.png: the result would have 9.6 megapixels, at most 4 are"
        ):
            call(large, Settings(model))


def test_the_limit_on_a_width_knows_the_orientation(model: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown upright
    source = photo(tmp_path / "a.jpg", 40, 20, exif=exif)
    service = Service(Limits(output_megapixels=0.015), "cpu")
    with pytest.raises(ImageError, match="the result would have 0.0 megapixels"):
        service.enlarge(source, Settings(model, width=100))  # 100x200
    assert service.enlarge(source, Settings(model, width=80)).picture.pixels.shape == (160, 80, 3)


@pytest.mark.parametrize("content", [None, b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_errors_name_the_file_and_no_folder(
    service: Service, model: str, tmp_path: Path, content: bytes | None
) -> None:
    bad = tmp_path / "bad.png"
    if content is not None:
        bad.write_bytes(content)
    for call in (
        lambda: service.check(bad),
        lambda: service.enlarge(bad, Settings(model)),
        lambda: service.enlarge_file(bad, tmp_path / "out.png", Settings(model)),
        lambda: service.test(bad, Settings(model)),
    ):
        with pytest.raises(ImageError, match="^bad.png: expected an image file, got") as caught:
            call()
        assert str(tmp_path) not in str(caught.value)


def test_stop_ends_within_a_tile(
    service: Service, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_hub.enlarging.tile_size_for", lambda *_: 16)
    source, target = photo(tmp_path / "a.png", 100, 100), tmp_path / "out.png"
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))

    for call in (
        lambda: service.enlarge(source, Settings(model), progress=progress, stopped=lambda: len(seen) > 1),
        lambda: service.enlarge_file(
            source, target, Settings(model), progress=progress, stopped=lambda: len(seen) > 1
        ),
    ):
        seen.clear()
        with pytest.raises(Stopped):
            call()
        assert len(seen) == 2 and seen[0][1] > 10
    assert list(tmp_path.iterdir()) == [source]
    for call in (
        lambda: service.enlarge(source, Settings(model), stopped=lambda: True),
        lambda: service.test(source, Settings(model), stopped=lambda: True),
    ):
        with pytest.raises(Stopped):
            call()


def test_a_full_disk_is_said_before_the_work(
    service: Service, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": 2**30 + 10_000}))
    with pytest.raises(ImageError, match=r"^out.png: the result needs up to 0 megabytes of disk"):
        service.enlarge_file(photo(tmp_path / "a.png"), tmp_path / "out.png", Settings(model))
    assert not (tmp_path / "out.png").exists()


def test_float_samples_are_said_to_be_rounded_by_what_rounds_them(
    service: Service, model: str, tmp_path: Path
) -> None:
    grey = np.random.default_rng(0).random((9, 8), dtype=np.float32)
    Image.fromarray(grey).save(tmp_path / "a.tif")
    made = service.enlarge(tmp_path / "a.tif", Settings(model))
    assert made.notices == () and made.picture.pixels.dtype == np.float32


def test_consistency_is_the_share_given_back(service: Service, model: str, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png", 90, 300)  # more than one band of rows
    before, after = (service.enlarge(source, Settings(model, consistency=c)) for c in (False, True))
    lr, sr = (
        torch.tensor(picture.pixels).permute(2, 0, 1)[None] / 255 for picture in (after.lr, after.picture)
    )
    assert after.consistency == pytest.approx(share_consistent(lr, sr, 4), abs=1e-7)
    assert before.consistency < after.consistency <= 1
    assert service.enlarge(source, Settings(model, scale=2.5)).consistency is None
    assert service.enlarge(source, Settings(model, scale=2)).consistency is not None


def test_every_sample_counts_for_what_is_given_back() -> None:
    lr = np.full((8, 6, 3), 100, np.uint8)
    assert given_back(lr, np.full((32, 24, 3), 101, np.uint8)) == 1
    assert given_back(lr, np.full((32, 24, 3), 102, np.uint8)) == 0
    lr[:2] = 200  # two rows of eight
    assert given_back(lr, np.full((32, 24, 3), 100, np.uint8)) == pytest.approx(6 / 8)
    assert given_back(lr, np.zeros((32, 25, 3), np.uint8)) is None


def test_a_known_picture_is_scored(service: Service, model: str, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png", 130, 99)
    tested = service.test(source, Settings(model, fidelity=1))
    assert tested.known.hr.pixels.shape == tested.sr.pixels.shape == (96, 128, 3)
    assert tested.known.lr.pixels.shape == (24, 32, 3)
    # The tiny network has learned nothing, and bicubic is right about smooth pictures.
    assert tested.scores.bicubic_psnr_y > 50 > 35 > tested.scores.psnr_y
    bound = service.test(source, Settings(model, fidelity=1, consistency=True))
    lr, sr, free = bound.known.lr.pixels, bound.sr.pixels, tested.sr.pixels
    assert (given_back(lr, sr) or 0) > (given_back(lr, free) or 0)
    with pytest.raises(ImageError, match="at least"):
        service.test(photo(tmp_path / "b.png", 30, 30), Settings(model))


def test_many_threads_get_their_own_results(model: str, tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    sources = [photo(tmp_path / f"{seed}.png", 24 + seed, 20, seed) for seed in range(8)]
    alone = Service(device="cpu")
    expected = [
        alone.enlarge(path, Settings(model, 0.5 + i / 20)).picture.pixels for i, path in enumerate(sources)
    ]
    service, start = Service(device="cpu"), threading.Barrier(8)

    def work(index: int) -> bool:
        start.wait()
        for _ in range(5):
            service.check(sources[index])
            got = service.enlarge(sources[index], Settings(model, 0.5 + index / 20)).picture.pixels
            if not np.array_equal(got, expected[index]):
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    assert before == Image.MAX_IMAGE_PIXELS


def test_metadata_is_read_back(service: Service, model: str, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png", dpi=(100, 100))
    service.enlarge_file(source, tmp_path / "b.png", Settings(model))
    assert read_picture(tmp_path / "b.png").dpi == pytest.approx((400, 400), abs=0.1)


def test_thumbnails_are_small_and_keep_the_colours(service: Service, tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png", 400, 300)
    service.write_thumbnail(source, tmp_path / "small.png", 100)
    with Image.open(source) as image, Image.open(tmp_path / "small.png") as small:
        assert small.size == (100, 75)
        expected = np.asarray(image.resize((100, 75), Image.Resampling.BICUBIC), int)
        assert np.abs(np.asarray(small) - expected)[2:-2, 2:-2].max() <= 2
    deep = np.random.default_rng(0).integers(0, 65536, (9, 9), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    service.write_thumbnail(tmp_path / "deep.png", tmp_path / "small.png", 100)
    with Image.open(tmp_path / "small.png") as small:  # not enlarged
        assert np.array_equal(np.asarray(small), np.rint(deep / 257))


@pytest.mark.parametrize(("seconds", "said"), [(1 / 150, "150"), (1 / 12.4, "12"), (1 / 1.54, "1.5")])
def test_speeds_are_said_in_plain_figures(service: Service, seconds: float, said: str) -> None:
    picture = Picture(np.zeros((1000, 1000, 3), np.uint8))
    assert f" s · {said} megapixels/s" in service._describe(picture, picture, seconds)
