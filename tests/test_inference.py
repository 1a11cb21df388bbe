"""`upscale`: the same result in tiles, for every kind of input, without touching the generator."""

import copy
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sr_hub import inference
from sr_hub.encoding import write_picture
from sr_hub.ensemble import DihedralEnsemble
from sr_hub.generator import SRGenerator
from sr_hub.images import ImageError, read_picture
from sr_hub.inference import choose_dtype, upscale, upscale_picture


class Bicubic(torch.nn.Module):
    """A generator whose results are known: bicubic resizing, which rings at edges like a sharp network."""

    scale, receptive_radius = 4, 3

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return F.interpolate(lr, scale_factor=4, mode="bicubic")


class Tint(Bicubic):
    """Shifts colours as no network should, so that what keeps grey grey can be seen."""

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        return super().forward(lr) + torch.tensor([0.3, 0.0, -0.3], dtype=lr.dtype).view(1, 3, 1, 1)


@pytest.fixture(scope="module")
def generator() -> SRGenerator:
    torch.manual_seed(0)
    network = SRGenerator(scale=4, features=8, blocks=2)
    with torch.no_grad():
        network.tail.weight.mul_(5)  # so that the convolutions, not the skip, make the picture
    return network


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def whole(generator: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    """The network's own result for ``(H, W, 3)`` in [0, 1], clamped."""
    lr = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        return np.asarray(generator(lr)[0].permute(1, 2, 0).clamp(0, 1))


# Tiles


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), tile_size=st.integers(4, 40), seed=st.integers(0, 9)
)
def test_tiled_equals_the_network_in_fp32(height: int, width: int, tile_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    generator = SRGenerator(scale=2, features=4, blocks=1)
    pixels = noise(height, width, 3, seed=seed).astype(np.float32) / 255
    sr = upscale(generator, pixels, tile_size=tile_size, precision="fp32")
    assert sr.dtype == np.float32
    np.testing.assert_allclose(sr, whole(generator, pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [4, 8, 16, 20, 24, 28, 32, 35, 40])
@pytest.mark.parametrize("tile_size", [1, 16])
def test_narrow_pictures_do_not_depend_on_tiles_by_one_bit(width: int, tile_size: int) -> None:
    # The bundled model, as oneDNN chooses how it sums by channels and pixels.
    pixels = noise(90, width, 3).astype(np.float32) / 255
    generator = SRGenerator.from_pretrained("clean")
    whole, tiled = (
        upscale(generator, pixels, tile_size=size, precision="fp32") for size in (1000, tile_size)
    )
    np.testing.assert_array_equal(tiled, whole)


def test_the_callers_picture_keeps_its_orientation(generator: SRGenerator) -> None:
    image = Image.new("RGB", (6, 4))
    image.getexif()[0x0112] = 6
    assert [upscale(generator, image).size for _ in range(2)] == [(16, 24)] * 2
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (97, 64)])
def test_tiled_equals_whole_within_a_grey_level_in_bf16(
    generator: SRGenerator, size: tuple[int, int]
) -> None:
    pixels = noise(*size, 3)
    tiled = upscale(generator, pixels, tile_size=16, precision="bf16").astype(int)
    untiled = upscale(generator, pixels, tile_size=1000, precision="bf16").astype(int)
    assert np.abs(tiled - untiled).max() <= 1
    exact = np.rint(whole(generator, pixels.astype(np.float32) / 255) * 255)
    assert np.abs(untiled - exact).mean() < 1  # bf16 is coarse, not wrong


def test_eight_bits_are_the_rounded_network(generator: SRGenerator) -> None:
    pixels = noise(40, 50, 3)
    expected = np.rint(whole(generator, pixels.astype(np.float32) / 255) * 255)
    sr = upscale(generator, pixels, precision="fp32", tile_size=16)
    assert np.abs(sr - expected).max() <= 1
    assert (sr != expected).mean() < 1e-3  # only where a value lies on the edge between two levels


def test_the_default_tile_is_bounded_by_memory(generator: SRGenerator) -> None:
    sizes = {
        dtype: inference.default_tile_size(SRGenerator(features=48, blocks=8), torch.device("cpu"), dtype)
        for dtype in (torch.bfloat16, torch.float32)
    }
    for dtype, size in sizes.items():
        assert 0.95 * 2**24 < 48 * dtype.itemsize * size**2 <= 2**24
    tiles = inference.default_tile_size(DihedralEnsemble(generator), torch.device("cpu"), torch.float32)
    channels = generator.head.out_channels
    assert tiles == min(1024, math.isqrt(2**25 // (4 * channels)) - 2 * generator.receptive_radius)


def test_progress_counts_strips_over_all_images(generator: SRGenerator) -> None:
    calls: list[tuple[int, int]] = []
    upscale(generator, torch.rand(2, 3, 200, 8), tile_size=24, progress=lambda *call: calls.append(call))
    # 200 rows in strips of 24 * 24 / 8 = 72 at most; the last would read too few and is one with the second
    assert calls == [(done, 4) for done in range(1, 5)]


# Kinds of input


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1), (6, 7, 2), (6, 7, 3), (6, 7, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64"])
def test_arrays_keep_their_kind(shape: tuple[int, ...], dtype: str) -> None:
    full = 1.0 if "f" in dtype else float(np.iinfo(dtype).max)
    pixels = np.full(shape, 0.5 * full).astype(dtype)
    pixels[..., 3:] = full
    sr = upscale(Bicubic(), pixels)
    assert sr.shape == (24, 28, *shape[2:])
    assert sr.dtype == np.dtype(dtype)
    np.testing.assert_allclose(sr[..., :3].astype(float), float(pixels.flat[0]), atol=full / 255)


def test_full_scale_of_16_bits_does_not_overflow() -> None:
    pixels = np.full((4, 4, 4), 65535, np.uint16)
    for precision in ("auto", "fp32", "bf16"):
        assert upscale(Bicubic(), pixels, precision=precision).min() == 65535


def test_sixteen_bits_are_more_than_eight() -> None:
    ramp = np.linspace(20000, 21000, 64).astype(np.uint16).reshape(8, 8, 1)
    assert len(np.unique(upscale(Bicubic(), ramp))) > 300  # eight bits would leave 5


def test_arrays_of_odd_strides_are_taken() -> None:
    pixels = noise(9, 8, 3)
    flipped = upscale(Bicubic(), pixels[::-1, :, ::-1])
    np.testing.assert_array_equal(flipped, upscale(Bicubic(), np.ascontiguousarray(pixels[::-1, :, ::-1])))
    pixels.flags.writeable = False
    assert upscale(Bicubic(), pixels).shape == (36, 32, 3)


def test_tensors_keep_their_kind_and_are_enlarged_one_by_one(generator: SRGenerator) -> None:
    lr = torch.rand(3, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    sr = upscale(generator, lr)
    assert sr.shape == (3, 3, 24, 20) and sr.dtype == torch.float32
    torch.testing.assert_close(upscale(generator, lr[1]), sr[1], rtol=0, atol=1e-6)
    assert upscale(generator, lr.double()).dtype == torch.float64


def test_the_input_is_not_changed(generator: SRGenerator) -> None:
    class Identity(torch.nn.Module):
        scale, receptive_radius = 1, 0

        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            return lr

    lr = torch.rand(1, 3, 6, 5)
    before = lr.clone()
    torch.testing.assert_close(upscale(Identity(), lr, precision="fp32"), before)
    assert torch.equal(lr, before)


def test_pil_and_paths_give_pil(tmp_path: Path, generator: SRGenerator) -> None:
    image = Image.fromarray(noise(6, 7, 3))
    image.save(tmp_path / "a.png", dpi=(100, 100))
    from_path = upscale(generator, tmp_path / "a.png")
    assert (from_path.mode, from_path.size) == ("RGB", (28, 24))
    assert from_path.info["dpi"] == pytest.approx((400, 400), abs=0.1)
    np.testing.assert_array_equal(np.asarray(from_path), np.asarray(upscale(generator, image)))
    np.testing.assert_array_equal(np.asarray(from_path), upscale(generator, np.asarray(image)))
    np.testing.assert_array_equal(np.asarray(from_path), upscale(generator, str(tmp_path / "a.png")))
    assert upscale(generator, image.convert("L")).mode == "L"
    assert upscale(generator, image.convert("P")).mode == "RGB"


def test_deep_colour_survives_from_file_to_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 7, 3), dtype=np.uint16)
    from sr_hub.images import Picture

    write_picture(Picture(pixels), tmp_path / "a.png")
    picture = upscale_picture(Bicubic(), read_picture(tmp_path / "a.png"))
    write_picture(picture, tmp_path / "b.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").pixels, upscale(Bicubic(), pixels))
    assert upscale(Bicubic(), tmp_path / "a.png").mode == "RGB"


# Grey and alpha


def test_grey_stays_grey() -> None:
    pixels = noise(6, 7)
    grey = upscale(Tint(), pixels, precision="fp32")
    expected = upscale(Bicubic(), pixels, precision="fp32")
    assert np.abs(grey.astype(int) - expected).max() <= 1
    as_rgb = upscale(Tint(), np.repeat(pixels[..., None], 3, axis=2), precision="fp32")
    np.testing.assert_array_equal(as_rgb, np.repeat(grey[..., None], 3, axis=2))


def disc(hidden: int, *, channels: int = 4) -> np.ndarray:
    """A hard-edged red disc; outside it alpha is 0 over the hidden colour."""
    y, x = np.mgrid[-12:12, -12:12] + 0.5
    pixels = np.full((24, 24, 4), hidden, np.uint8)
    inside = x**2 + y**2 < 80
    pixels[inside] = (200, 40, 30, 255)
    pixels[~inside, 3] = 0
    return pixels if channels == 4 else pixels[..., [1, 3]]


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_cut_out_has_no_fringes(hidden: int, channels: int, precision: inference.Precision) -> None:
    sr = upscale(Bicubic(), disc(hidden, channels=channels), precision=precision, tile_size=8).astype(float)
    colors, alpha = sr[..., :-1], sr[..., -1:] / 255
    red = np.array([200.0, 40, 30] if channels == 4 else [40.0])
    for background in (0.0, 255.0):
        laid = alpha * colors + (1 - alpha) * background
        ideal = alpha * red + (1 - alpha) * background
        assert np.abs(laid - ideal).max() <= 1


def shadowed(inside: int, faint: int) -> np.ndarray:
    """An opaque square, black or white, amid its opposite, which hardly shows."""
    pixels = np.full((20, 20, 4), 255 - inside, np.uint8)
    pixels[..., 3] = faint
    pixels[6:14, 6:14] = (inside, inside, inside, 255)
    return pixels


@pytest.mark.parametrize("faint", [1, 30, 90])
@pytest.mark.parametrize("inside", [0, 255])
def test_an_object_and_its_shadow_have_no_fringe_between(faint: int, inside: int) -> None:
    pixels = shadowed(inside, faint)
    sr = upscale(Bicubic(), pixels, precision="fp32", tile_size=9).astype(float)
    for background in (0.0, 255.0):
        small, laid = (
            image[..., :3] * image[..., 3:] / 255 + (1 - image[..., 3:] / 255) * background
            for image in (pixels.astype(float), sr)
        )
        # Laid on anything, the edge lies between what is on its two sides: colours alone would be 61 beyond.
        assert small.min() - 4 <= laid.min() and laid.max() <= small.max() + 4


def test_a_cut_out_edge_is_as_sharp_as_a_colour_edge() -> None:
    pixels = disc(0)
    alpha = upscale(Bicubic(), pixels, precision="fp32")[..., 3]
    colour = upscale(Bicubic(), pixels[..., 3], precision="fp32")
    np.testing.assert_allclose(alpha.astype(int), colour, atol=2)  # but for the ringing
    assert alpha[48, 48] == 255 and alpha[0, 0] == 0


def test_alpha_stays_between_its_neighbours() -> None:
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[:, :4, 1], pixels[:, 4:, 1] = 100, 200
    alpha = upscale(Bicubic(), pixels, precision="fp32")[..., 1]
    assert alpha.min() == 100 and alpha.max() == 200  # bicubic alone rings to 93 and 207
    assert (alpha[:, :8] == 100).all() and (alpha[:, 24:] == 200).all()


@pytest.mark.parametrize("value", [0, 77, 255])
def test_even_alpha_stays_exact(generator: SRGenerator, value: int) -> None:
    pixels = noise(9, 9, 4)
    pixels[..., 3] = value
    sr = upscale(generator, pixels, precision="bf16")
    assert (sr[..., 3] == value).all()
    if value:
        np.testing.assert_array_equal(sr[..., :3], upscale(generator, pixels[..., :3], precision="bf16"))


def test_tiles_do_not_show_in_alpha(generator: SRGenerator) -> None:
    pixels = noise(50, 40, 4)
    pixels[10:30, 5:25, 3] = 0
    tiled = upscale(generator, pixels, precision="fp32", tile_size=7).astype(int)
    untiled = upscale(generator, pixels, precision="fp32", tile_size=99).astype(int)
    assert np.abs(tiled - untiled).max() <= 1


# Precision and the generator


def test_the_generator_is_left_as_it_was(generator: SRGenerator) -> None:
    before = copy.deepcopy(generator.state_dict())
    generator.train()
    upscale(generator, noise(5, 5, 3), precision="bf16")
    assert generator.training
    after = generator.state_dict()
    assert all(torch.equal(after[key], before[key]) and after[key].dtype == torch.float32 for key in before)
    assert all(weight.requires_grad and weight.is_contiguous() for weight in generator.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_default_dtype_of_the_caller_changes_nothing(
    generator: SRGenerator, dtype: torch.dtype, channels: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, channels), dtype=np.uint8)
    expected = upscale(generator, pixels)
    torch.set_default_dtype(dtype)
    try:
        result = upscale(generator, pixels)
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_autocast_around_the_call_changes_nothing(generator: SRGenerator, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 8, channels), dtype=np.uint8)
    expected = upscale(generator, pixels, precision="fp32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = upscale(generator, pixels, precision="fp32")
    np.testing.assert_array_equal(result, expected)


def test_weights_changed_in_place_are_noticed(generator: SRGenerator) -> None:
    network = copy.deepcopy(generator)
    before = upscale(network, noise(5, 5, 3))
    with torch.no_grad():
        network.tail.bias.add_(0.2)
    assert (upscale(network, noise(5, 5, 3)) != before).any()


def test_auto_takes_bf16_where_it_is_fast_and_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(inference, "has_fast_bf16", lambda device: True)
    assert choose_dtype(cpu, "auto") == torch.bfloat16
    assert choose_dtype(cpu, "auto", eight_bit=False) == torch.float32
    monkeypatch.setattr(inference, "has_fast_bf16", lambda device: False)
    assert choose_dtype(cpu, "auto") == torch.float32
    assert choose_dtype(cpu, "bf16") == torch.bfloat16
    assert choose_dtype(torch.device("cuda"), "fp16") == torch.float16
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        choose_dtype(cpu, "fp16")
    with pytest.raises(ValueError, match="precision must be auto, bf16, fp16, fp32, got 'half'"):
        choose_dtype(cpu, "half")  # type: ignore[arg-type]  # what the error is for


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_gives_what_the_cpu_gives(generator: SRGenerator, precision: inference.Precision) -> None:
    pixels = noise(70, 50, 4)
    on_cpu = upscale(generator, pixels, precision="fp32").astype(int)
    on_gpu = upscale(copy.deepcopy(generator).cuda(), pixels, precision=precision, tile_size=16)
    assert np.abs(on_gpu - on_cpu).mean() < 1
    lr = torch.rand(3, 8, 8)
    assert upscale(copy.deepcopy(generator).cuda(), lr).device == lr.device


# Wrong input


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (5, TypeError, "got int"),
        (np.zeros((4, 4), np.int32), TypeError, "uint8, uint16 or float, got int32"),
        (np.zeros((4, 4), bool), TypeError, "got bool"),
        (np.zeros(4, np.uint8), ValueError, r"shape \(H, W\) or \(H, W, 1 to 4\), got \(4,\)"),
        (np.zeros((3, 4, 5), np.uint8), ValueError, r"got \(3, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"at least one pixel, got shape \(0, 4, 3\)"),
        (np.full((4, 4), 200.0), ValueError, r"in \[0, 1\], got 200 to 200"),
        (np.full((4, 4), np.nan), ValueError, r"in \[0, 1\], got nan"),
        (torch.zeros(3, 4, 4).to(torch.float8_e4m3fn), TypeError, "16 bits, got torch.float8_e4m3fn"),
        (
            torch.zeros(3, 4, 4, dtype=torch.uint8),
            TypeError,
            "float tensor of at least 16 bits, got torch.uint8",
        ),
        (torch.zeros(4, 4, 3), ValueError, r"\(3, H, W\) or \(N, 3, H, W\), got \(4, 4, 3\)"),
        (torch.full((3, 4, 4), 1.5), ValueError, r"in \[0, 1\], got 1.5 to 1.5"),
        (torch.zeros(0, 3, 4, 4), ValueError, r"got \(0, 3, 4, 4\)"),
        ("none.png", ImageError, "none.png: expected an image file, got no such file"),
    ],
)
def test_wrong_images_are_refused(image: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        upscale(Bicubic(), image)  # type: ignore[call-overload]  # what the error is for


def test_wrong_generators_and_tiles_are_refused() -> None:
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got str"):
        upscale("clean", noise(4, 4))  # type: ignore[arg-type]  # what the error is for
    with pytest.raises(TypeError, match="whole number scale, Linear has none"):
        upscale(torch.nn.Linear(1, 1), noise(4, 4))
    with pytest.raises(ValueError, match="tile_size must be at least 1, got 0"):
        upscale(Bicubic(), noise(4, 4), tile_size=0)
    for wrong in ("16", 2.5, True):
        with pytest.raises(TypeError, match=f"tile_size must be a whole number, got {wrong!r}"):
            upscale(Bicubic(), noise(4, 4), tile_size=wrong)  # type: ignore[arg-type]  # the same


@pytest.mark.slow
def test_memory_for_twelve_megapixels(tmp_path: Path) -> None:
    """Peak of the whole process: 2.5 times the 8-bit output and 600 MB."""
    Image.fromarray(noise(300, 400, 3)).resize((4000, 3000)).save(tmp_path / "a.jpg")
    program = f"""
        import resource
        from sr_hub.generator import SRGenerator
        from sr_hub.inference import upscale
        image = upscale(SRGenerator(features=48, blocks=1), {str(tmp_path / "a.jpg")!r})
        assert image.size == (16000, 12000)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    peak = int(run.stdout)
    assert peak <= 2.5 * 16000 * 12000 * 3 + 600e6, f"{peak / 1e6:.0f} MB"
