import subprocess
import sys
import weakref
from collections import Counter, deque
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sr_hub import data
from sr_hub.data import Crops, decode, gather, list_images, smallest_side, stack
from sr_hub.degradations import DEGRADATIONS

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for index, (height, width) in enumerate([(90, 120), (100, 80), (70, 200)]):
        path = tmp_path / f"sub{index}" / f"{index}.png"
        path.parent.mkdir()
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return tmp_path


def crops(folder: Path, memory_limit: float = 1e9, smallest: int = 48) -> Crops:
    return Crops(list_images(folder), smallest, memory_limit, CPU)


def test_lists_images_of_a_tree_only(folder: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "x.png").write_bytes(b"")
    assert [path.name for path in list_images(folder)] == ["0.png", "1.png", "2.png"]


def test_what_is_left_out_is_not_listed(folder: Path) -> None:
    assert [path.name for path in list_images(folder, [folder / "sub0", folder / "sub2" / "2.png"])] == [
        "1.png"
    ]
    assert len(list_images(folder, [folder.parent, folder / "nothing"])) == 3


def test_links_to_folders_are_followed_but_no_folder_is_read_twice(folder: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name in ("a", "b", ".hidden"):
        (elsewhere / name).mkdir()
        Image.new("RGB", (8, 8)).save(elsewhere / name / f"{name}.png")
    (elsewhere / "b" / "loop").symlink_to(elsewhere / "a")
    (elsewhere / "a" / "loop").symlink_to(elsewhere / "b")
    Image.new("RGB", (8, 8)).save(elsewhere / "beside.png")
    (elsewhere / "a" / "up").symlink_to(elsewhere)  # would bring in what lies beside
    (folder / "a").symlink_to(elsewhere / "a")
    (folder / "again").symlink_to(folder / "sub1")
    (folder / "self").symlink_to(folder)
    (folder / ".b").symlink_to(elsewhere / ".hidden")
    names = [path.relative_to(folder).as_posix() for path in list_images(folder)]
    assert names == ["a/a.png", "a/loop/b.png", "sub0/0.png", "sub1/1.png", "sub2/2.png"]


@pytest.mark.parametrize("name", ["a.tga", "a.jfif", "a.mpo"])
def test_rarer_names_of_pillows_formats_are_listed(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert [decode(path).shape for path in list_images(tmp_path)] == [(8, 8, 3)]


def test_the_first_picture_loads_the_plugins_of_pillow(tmp_path: Path) -> None:
    """In a process of its own, where no other test has loaded them."""
    (tmp_path / "pillow_jxl.py").write_text("print('loaded')")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    program = "import sys, pathlib, sr_hub.data as data; data.decode(pathlib.Path(sys.argv[1]))"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, sys.argv[2]); {program}"]
        + [str(tmp_path / "a.png"), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.stdout == "loaded\n", run.stderr


def test_the_images_are_not_held_twice() -> None:
    """Each piece is gone when the next is copied."""
    alive: set[int] = set()
    most = 0

    class Pieces(deque[torch.Tensor]):
        def popleft(self) -> torch.Tensor:
            nonlocal most
            most = max(most, len(alive) - len(self))
            return super().popleft()

    pieces: deque[torch.Tensor] = Pieces()
    for index in range(5):
        piece = torch.full((index + 1,), index, dtype=torch.uint8)
        alive.add(index)
        weakref.finalize(piece, alive.remove, index)
        pieces.append(piece)
    del piece
    joined = data._joined(pieces, CPU)
    assert joined.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4]
    assert most <= 1


def test_missing_folder_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent: name one with --data FOLDER"):
        list_images(tmp_path / "absent")


def test_bad_and_small_files_are_reported_and_skipped(folder: Path) -> None:
    (folder / "empty.png").write_bytes(b"")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    (folder / "cut.png").write_bytes((folder / "sub0" / "0.png").read_bytes()[:2000])
    Image.new("RGB", (10, 300)).save(folder / "small.png")
    found = crops(folder)
    assert {path.name for path, _ in found.skipped} == {"empty.png", "broken.jpg", "cut.png", "small.png"}
    assert {path.name: why for path, why in found.skipped}["small.png"] == "10x300 is smaller than 48 pixels"
    assert len(found.paths) == 3


def test_whatever_a_decoder_raises_the_picture_is_skipped(folder: Path) -> None:
    """libavif gives a RuntimeError."""
    Image.new("RGB", (60, 60)).save(folder / "x.avif")
    content = (folder / "x.avif").read_bytes()
    (folder / "x.avif").write_bytes(content[:-20] + b"\xff" * 20)
    ((path, why),) = crops(folder).skipped
    assert path.name == "x.avif" and why.startswith("unreadable (")


def test_an_empty_set_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="1 files found, 1 skipped"):
        crops(tmp_path)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode(tmp_path / "turned.jpg").shape == (30, 20, 3)


def test_deep_grey_pictures_keep_their_tones(tmp_path: Path) -> None:
    """16 bits are divided by 257, floats in [0, 1] multiplied by 255, then rounded."""
    tones = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024 + 7
    expected = np.rint(tones / 257).astype(np.uint8)[..., None].repeat(3, 2)
    Image.fromarray(tones).save(tmp_path / "16.png")
    Image.fromarray(tones).save(tmp_path / "16.tif")
    Image.fromarray(tones.astype(np.int32)).save(tmp_path / "32.tif")
    big_endian = tones.astype(">u2")
    Image.frombytes("I;16B", (8, 8), big_endian.tobytes()).save(tmp_path / "16b.tif")
    Image.fromarray((tones / 65535).astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("16.png", "16.tif", "32.tif", "16b.tif", "float.tif"):
        with Image.open(tmp_path / name) as image:
            assert image.mode[0] in "IF", name
        found = decode(tmp_path / name)
        assert found.dtype == np.uint8 and np.array_equal(found, expected), name


def test_transparent_deep_grey_lies_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 25700]], np.uint16)).save(tmp_path / "key.png", transparency=7)
    assert decode(tmp_path / "key.png")[0, :, 0].tolist() == [255, 100]


def test_a_float_picture_that_is_not_finite_is_skipped(tmp_path: Path, folder: Path) -> None:
    Image.fromarray(np.full((60, 60), np.nan, np.float32)).save(folder / "nan.tif")
    ((path, why),) = crops(folder).skipped
    assert path.name == "nan.tif" and "finite" in why


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_8_bit_pictures_are_what_pillow_makes_of_them(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4), np.uint8)
    image = Image.fromarray(pixels).convert(mode if mode != "CMYK" else "RGB").convert(mode)
    image.save(tmp_path / "picture.tif")
    with Image.open(tmp_path / "picture.tif") as image:
        assert np.array_equal(decode(tmp_path / "picture.tif"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
def test_streamed_and_kept_images_give_the_same_batches(folder: Path, degradation: str) -> None:
    side = smallest_side(4, 4)
    arguments = ([1, 2, 3, 4], 5, 4, 4, DEGRADATIONS[degradation])
    kept = crops(folder, smallest=side).batch(*arguments)
    streamed = crops(folder, memory_limit=1, smallest=side).batch(*arguments)
    assert torch.equal(kept.hr, streamed.hr)
    assert torch.equal(kept.lr, streamed.lr)
    assert kept.hr.shape == (4, 3, 16, 16)
    assert kept.lr.shape == (4, 3, 4, 4)


@pytest.mark.parametrize("cut", [stack, gather])
def test_squares_are_cut_out_of_the_buffer(cut: Callable[..., torch.Tensor]) -> None:
    images = [torch.randint(0, 256, size, dtype=torch.uint8) for size in ((20, 30, 3), (16, 9, 3))]
    buffer = torch.cat([image.flatten() for image in images])
    starts = [3 * (2 * 30 + 5), 3 * (20 * 30 + 8 * 9 + 1)]  # row 2, column 5; row 8, column 1
    squares = cut(buffer, starts, [30, 9], 8)
    assert torch.equal(squares, torch.stack([images[0][2:10, 5:13], images[1][8:16, 1:9]]))


def test_a_pair_depends_on_its_key_only(folder: Path) -> None:
    found = crops(folder)
    together = found.batch([1, 2, 3], 0, 4, 4, DEGRADATIONS["photo"])
    alone = found.batch([2], 0, 4, 4, DEGRADATIONS["photo"])
    assert torch.equal(together.lr[1:2], alone.lr)
    assert torch.equal(together.hr[1:2], alone.hr)


def test_lr_and_hr_show_the_same_place(folder: Path) -> None:
    """Also after flips and turns: the mean colour of a pair agrees."""
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    Image.fromarray(np.stack([np.tile(ramp, (90, 1))] * 3, -1)).save(folder / "ramp.png")
    found = Crops([folder / "ramp.png"], 48, 1e9, CPU)
    for turn in range(8):
        batch = found.batch([1, 2], turn, 4, 4, DEGRADATIONS["bicubic"])
        pooled = torch.nn.functional.avg_pool2d(batch.hr, 4)
        assert (pooled - batch.lr).abs().max() < 0.02, turn
        assert batch.hr.std() > 0.005


def test_large_images_are_drawn_more_often(folder: Path) -> None:
    found = crops(folder)
    areas = torch.tensor([90 * 120, 100 * 80, 70 * 200], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(3)
    for _ in range(3000):
        index, top, left = found.place(generator, 48)
        counts[index] += 1
        height, width = found.sizes[index]
        assert 0 <= top <= height - 48 and 0 <= left <= width - 48
    assert torch.allclose(counts.double() / 3000, areas / areas.sum(), atol=0.04)


def test_all_shifts_are_drawn(folder: Path) -> None:
    found = crops(folder)
    shifts = {
        tuple(found.batch([1], turn, 4, 4, DEGRADATIONS["bicubic"]).shift.tolist())
        for turn in range(0, 512, 8)
    }
    assert shifts == {(down, right) for down in range(8) for right in range(8)}


def test_shrunk_crops_show_more_of_the_picture(tmp_path: Path) -> None:
    """A ramp shrunk by a factor is that many times as steep."""
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3))
    Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / "ramp.png")
    found = Crops([tmp_path / "ramp.png"], smallest_side(4, 4, 2.0), 1e9, CPU)
    for share, factor in ((0, 1), (0.5, 1.5), (1 - 2**-23, 2)):
        turn = int(share * 2**23) << 9
        batch = found.batch([1, 2], turn, 4, 4, DEGRADATIONS["bicubic"], 2.0)
        assert batch.hr.shape == (2, 3, 16, 16)
        assert batch.lr.shape == (2, 3, 4, 4)
        rise = (batch.hr[..., 15] - batch.hr[..., 0]).mean() * 255 / 15
        assert abs(rise - factor) < 0.05
        assert torch.equal(batch.hr, (batch.hr * 255).round() / 255)
        assert abs((batch.hr.mean() - batch.lr.mean()) * 255) < 1


def test_shrinking_needs_larger_images(folder: Path) -> None:
    assert smallest_side(4, 4) == 48
    assert smallest_side(4, 4, 1.5) == 72
    found = crops(folder, smallest=smallest_side(4, 4, 1.5))
    assert [why for _, why in found.skipped] == ["200x70 is smaller than 72 pixels"]


def test_recolored_crops_are_exchanged_channels_and_negatives_of_the_crops(folder: Path) -> None:
    found, keys = crops(folder), list(range(400))
    plain = found.batch(keys, 0, 4, 4, DEGRADATIONS["bicubic"])
    batch = found.batch(keys, 0, 4, 4, DEGRADATIONS["bicubic"], recolor=0.6)
    kinds: Counter[tuple[tuple[int, ...], bool]] = Counter()
    for before, after, lr in zip(plain.hr, batch.hr, batch.lr, strict=True):
        kind = next(
            (order, negative)
            for order in permutations(range(3))
            for negative in (False, True)
            if torch.allclose(after, 1 - before[list(order)] if negative else before[list(order)], atol=1e-6)
        )
        kinds[kind] += 1
        assert abs(after.mean() - lr.mean()) < 0.02, "lr is made of what hr became"
    usual = kinds.pop(((0, 1, 2), False))
    assert abs(usual / 400 - (0.4 + 0.6 / 12)) < 0.1
    assert len(kinds) == 11 and all(abs(count / 400 - 0.05) < 0.04 for count in kinds.values())


def test_recolored_crops_are_the_same_for_the_same_keys(folder: Path) -> None:
    found = crops(folder)
    first, second = (found.batch([3, 4], 0, 4, 4, DEGRADATIONS["photo"], recolor=1) for _ in range(2))
    assert torch.equal(first.hr, second.hr) and torch.equal(first.lr, second.lr)
