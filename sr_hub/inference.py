"""Enlarge files, PIL images, arrays and tensors with a generator."""

import copy
import math
import os
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sr_hub.allocator import LARGEST_KEPT_BLOCK, freed_memory_kept
from sr_hub.fused import add_nearest, multiplies_exactly
from sr_hub.generator import RowsAbove
from sr_hub.images import Picture, from_pil, read_picture, to_pil
from sr_hub.pixels import extend_colors, is_grey
from sr_hub.precision import has_fast_bf16
from sr_hub.tiling import map_tiles, row_strips, tile_spans

Precision = Literal["auto", "bf16", "fp16", "fp32"]
Progress = Callable[[int, int], None]
Enlargeable = TypeVar("Enlargeable", Image.Image, np.ndarray, torch.Tensor)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_BAND = 2**21  # bytes of floats turned into samples at once: they stay in a core's cache
_SMALLEST_TILE, _LARGEST_TILE = 64, 1024
_LOWEST_STRIP = 64  # rows, about: below, the few that a layer computes twice would count
_FEWEST_ROWS = 8  # that a strip may have where tiles are tiny
_FEWEST_PIXELS = 512  # likewise: on fewer, oneDNN sums in another order than on the whole picture


@overload
def upscale(
    generator: torch.nn.Module,
    image: str | os.PathLike[str],
    *,
    tile_size: int | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> Image.Image: ...


@overload
def upscale(
    generator: torch.nn.Module,
    image: Enlargeable,
    *,
    tile_size: int | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> Enlargeable: ...


def upscale(
    generator: torch.nn.Module,
    image: str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor,
    *,
    tile_size: int | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> Image.Image | np.ndarray | torch.Tensor:
    """Enlarge an image ``generator.scale`` times.

    Args:
        generator: Such as `sr_hub.SRGenerator`: has ``scale`` and ``receptive_radius``. It is not changed and
            runs on the device its weights are on.
        image: One of

            - a path or PIL image of any mode; the result is a PIL image of mode L, LA, RGB, RGBA, I;16 or F
              with its metadata in ``info``. (PIL has no 16-bit colour; `upscale_picture` keeps it.)
            - an array ``(H, W)`` or ``(H, W, C)``: C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha;
              uint8, uint16, or float in [0, 1].
            - a float tensor ``(3, H, W)`` or ``(N, 3, H, W)`` in [0, 1], RGB.
        tile_size: LR pixels a side of the pieces that the image is worked on in: tiles, or strips of the same
            area; smaller ones need less memory. The result does not depend on it. Default: the size that ran
            fastest in measurements.
        precision: "bf16", "fp16" (not on a CPU), "fp32", or "auto": bf16 for 8-bit images where the machine
            has instructions for it, else fp32.
        progress: Called with the tiles done and the number of tiles after each one.

    Returns:
        The same kind as `image`, ``scale`` times as high and wide, clamped. Arrays and tensors keep their
        dtype.

    Raises:
        TypeError: If `generator` or `image` is of another kind or dtype.
        ValueError: If a shape, value or option is out of range, or an image file cannot be read
            (`ImageError`).
    """
    _check_generator(generator)
    if isinstance(image, str | os.PathLike):
        picture = upscale_picture(
            generator, read_picture(image), tile_size=tile_size, precision=precision, progress=progress
        )
        return to_pil(picture)
    if isinstance(image, Image.Image):
        picture = upscale_picture(
            generator, from_pil(image), tile_size=tile_size, precision=precision, progress=progress
        )
        return to_pil(picture)
    if isinstance(image, np.ndarray):
        pixels = _check_array(image)
        result = _upscale_pixels(generator, pixels, tile_size, precision, progress)
        return result.astype(image.dtype, copy=False).reshape(*result.shape[:2], *image.shape[2:])
    if isinstance(image, torch.Tensor):
        return _upscale_tensor(generator, image, tile_size, precision, progress)
    raise TypeError(f"image must be a path, a PIL image, an array or a tensor, got {type(image).__name__}")


def upscale_picture(
    generator: torch.nn.Module,
    picture: Picture,
    *,
    tile_size: int | None = None,
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> Picture:
    """Enlarge a picture that `read_picture` returned, for `write_picture`: depth and metadata stay.

    The other arguments and the errors are those of `upscale`.
    """
    _check_generator(generator)
    pixels = _upscale_pixels(generator, _check_array(picture.pixels), tile_size, precision, progress)
    return picture.enlarged(pixels)


def choose_dtype(device: torch.device, precision: Precision, *, eight_bit: bool = True) -> torch.dtype:
    """The dtype the network runs in.

    Args:
        device: Where it runs.
        precision: As in `upscale`.
        eight_bit: Whether the image has 8 bits per sample. bf16 has no more, so deeper images take fp32.

    Raises:
        ValueError: If the precision is unknown, or fp16 on a CPU.
    """
    if precision == "auto":
        return torch.bfloat16 if eight_bit and has_fast_bf16(device) else torch.float32
    if precision not in _DTYPES:
        raise ValueError(f"precision must be auto, {', '.join(_DTYPES)}, got {precision!r}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision fp16 needs a GPU, got a CPU: choose auto, bf16 or fp32")
    return _DTYPES[precision]


def _scale(generator: torch.nn.Module) -> int:
    return int(generator.scale)  # type: ignore[arg-type]  # checked by _check_generator


def _radius(generator: torch.nn.Module) -> int:
    return int(generator.receptive_radius)  # type: ignore[arg-type]  # checked by _check_generator


def _by_strips(generator: torch.nn.Module) -> bool:
    """Whether it can take an image without alpha from top to bottom, as `sr_hub.SRGenerator` can."""
    return hasattr(generator, "residual")


def _check_generator(generator: torch.nn.Module) -> None:
    if not isinstance(generator, torch.nn.Module):
        raise TypeError(f"generator must be a torch.nn.Module, got {type(generator).__name__}")
    for name in ("scale", "receptive_radius"):
        if not isinstance(getattr(generator, name, None), int):
            raise TypeError(f"generator must have a whole number {name}, {type(generator).__name__} has none")


def _check_array(array: np.ndarray) -> np.ndarray:
    array = np.asarray(array)  # of subclasses, such as np.matrix, which is never three-dimensional
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 2, 3, 4)):
        raise ValueError(f"image must have shape (H, W) or (H, W, 1 to 4), got {array.shape}")
    if array.size == 0:
        raise ValueError(f"image must have at least one pixel, got shape {array.shape}")
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        dtype = array.dtype.newbyteorder("=")
    elif array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"float images must lie in [0, 1], got {array.min():g} to {array.max():g}")
        dtype = np.dtype(np.float32)
    else:
        raise TypeError(f"image must be uint8, uint16 or float, got {array.dtype}")
    pixels = array if array.ndim == 3 else array[..., None]
    return np.require(pixels, dtype=dtype, requirements=["C", "W"])  # torch takes no others


def prepare_pixels(pixels: np.ndarray) -> tuple[np.ndarray, bool]:
    """Colours carried on under what is transparent, and whether the picture is grey: facts of the whole."""
    grey = is_grey(pixels)
    if pixels.shape[2] in (2, 4) and not pixels[..., -1].all():
        pixels = np.concatenate([extend_colors(pixels), pixels[..., -1:]], axis=2)
    return pixels, grey


def upscale_prepared(
    generator: torch.nn.Module,
    pixels: np.ndarray,
    tile_size: int | None,
    precision: Precision,
    progress: Progress | None,
    *,
    grey: bool,
) -> np.ndarray:
    """``(H, W, C)`` uint8, uint16 or float32 to ``(scale*H, scale*W, C)`` of the same dtype."""
    scale = _scale(generator)
    result = np.empty((scale * pixels.shape[0], scale * pixels.shape[1], pixels.shape[2]), pixels.dtype)
    source, target = (torch.from_numpy(array).permute(2, 0, 1)[None] for array in (pixels, result))
    _run(generator, [source], [target], tile_size, precision, progress, grey=grey)
    return result


def _upscale_pixels(
    generator: torch.nn.Module,
    pixels: np.ndarray,
    tile_size: int | None,
    precision: Precision,
    progress: Progress | None,
) -> np.ndarray:
    pixels, grey = prepare_pixels(pixels)
    return upscale_prepared(generator, pixels, tile_size, precision, progress, grey=grey)


def _upscale_tensor(
    generator: torch.nn.Module,
    image: torch.Tensor,
    tile_size: int | None,
    precision: Precision,
    progress: Progress | None,
) -> torch.Tensor:
    if not image.is_floating_point() or image.itemsize < 2:
        raise TypeError(f"image must be a float tensor of at least 16 bits, got {image.dtype}")
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
        raise ValueError(f"image must have shape (3, H, W) or (N, 3, H, W), got {tuple(image.shape)}")
    low, high = (value.item() for value in image.detach().aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"image must lie in [0, 1], got {low:g} to {high:g}")
    scale = _scale(generator)
    height, width = image.shape[-2:]
    result = torch.empty(
        (*image.shape[:-2], scale * height, scale * width), dtype=image.dtype, device=image.device
    )
    sources = image.detach().reshape(-1, 1, 3, height, width)
    targets = result.view(-1, 1, 3, scale * height, scale * width)
    _run(generator, list(sources), list(targets), tile_size, precision, progress, grey=False)
    return result


def _run(
    generator: torch.nn.Module,
    sources: list[torch.Tensor],
    targets: list[torch.Tensor],
    tile_size: int | None,
    precision: Precision,
    progress: Progress | None,
    *,
    grey: bool,
) -> None:
    """Fill targets ``(1, C, scale*H, scale*W)`` from sources ``(1, C, H, W)``, all of one size and dtype."""
    device = next((weight.device for weight in generator.parameters()), torch.device("cpu"))
    dtype = choose_dtype(device, precision, eight_bit=sources[0].dtype == torch.uint8)
    if tile_size is None:
        tile_size = default_tile_size(generator, device, dtype)
    elif isinstance(tile_size, bool) or not isinstance(tile_size, int):
        raise TypeError(f"tile_size must be a whole number, got {tile_size!r}")
    elif tile_size < 1:
        raise ValueError(f"tile_size must be at least 1, got {tile_size}")
    # A copy, as the caller's weights must keep their dtype; made anew each time, which takes 3 ms.
    network = copy.deepcopy(generator).eval()
    network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub

    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(index * total + done, len(sources) * total)

    by_strips = sources[0].shape[1] in (1, 3) and _by_strips(network)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), freed_memory_kept():
        for index, (source, target) in enumerate(zip(sources, targets, strict=True)):  # noqa: B007
            if by_strips:
                _run_strips(network, source, target, tile_size, report, device=device, grey=grey)
                continue
            map_tiles(
                partial(_enlarge, network, device=device, grey=grey),
                source,
                target,
                tile_size=tile_size,
                overlap=max(_radius(generator), 1),  # 1 for alpha's neighbours
                scale=_scale(generator),
                progress=report,
            )


def _run_strips(
    network: torch.nn.Module,
    source: torch.Tensor,
    target: torch.Tensor,
    tile_size: int,
    report: Progress,
    *,
    device: torch.device,
    grey: bool,
) -> None:
    """As `_run` for an image without alpha, from top to bottom in strips that share their layers' rows.

    A strip has the area of a tile and is as wide as the image, or, where it would be very low, a part of it.
    """
    overlap, scale = _radius(network), _scale(network)
    widest = max(tile_size, (tile_size + 2 * overlap) ** 2 // _LOWEST_STRIP)
    columns = tile_spans(source.shape[-1], widest, overlap)
    width = columns[0].stop - columns[0].start
    fewest = max(_FEWEST_ROWS, -(-_FEWEST_PIXELS // width))
    strips = row_strips(source.shape[-2], max(fewest, tile_size**2 // width), overlap, fewest=fewest)
    target, full = _by_sub_pixel(target, scale), _full(source)
    for index, column in enumerate(columns):
        above = RowsAbove()
        for number, strip in enumerate(strips):
            samples = source[:, :, strip.read, column.window].to(device).to(torch.float32)
            last = number + 1 == len(strips)
            residual = network.residual(_to_input(samples, full), above, last=last)[0]  # type: ignore[operator]
            kept = slice(column.keep_start, column.keep_stop)
            levels = source[0, :, strip.done, kept].to(device).to(torch.float32)
            result = _to_samples(residual[:, column.crop(1)], levels, full, grey=grey)
            target[..., strip.done, kept].copy_(result)
            report(index * len(strips) + number + 1, len(columns) * len(strips))


def _by_sub_pixel(target: torch.Tensor, scale: int) -> torch.Tensor:
    """``(1, C, scale*H, scale*W)`` seen as ``(scale, scale, C, H, W)``."""
    split = target[0].unflatten(-2, (-1, scale)).unflatten(-1, (-1, scale))  # (C, H, scale, W, scale)
    return split.permute(2, 4, 0, 1, 3)


def _to_samples(residual: torch.Tensor, levels: torch.Tensor, full: float, *, grey: bool) -> torch.Tensor:
    """Samples ``(scale, scale, 1 or 3, h, w)`` from a network's residual ``(h, w, scale, scale, 3)``.

    It is turned into samples band by band, before the sub-pixel step, so that for 8 bits the step moves bytes
    instead of floats and no float image of the output's size is ever held.

    Args:
        residual: In units of ``full``.
        levels: ``(1 or 3, h, w)`` of the input, in [0, full].
        full: The largest value; 1 where samples are not whole numbers.
        grey: Whether the result has one channel: the mean of the three.
    """
    levels = levels.expand(3, -1, -1).permute(1, 2, 0)
    dtype = torch.uint8 if full == 255 else torch.float32
    sr = torch.empty((*residual.shape[:-1], 1 if grey else 3), dtype=dtype, device=residual.device)
    rows = max(1, _BAND // (residual[0].numel() * 4))
    for band, part, level in zip(sr.split(rows), residual.split(rows), levels.split(rows), strict=True):
        if full == 255 or multiplies_exactly(level):
            samples = add_nearest(part, level, gain=full)
        else:
            samples = part.to(torch.float32) * full + level[:, :, None, None]
        if grey:
            samples = samples.mean(dim=-1, keepdim=True)
        band.copy_(samples.clamp_(0, 1) if full == 1 else samples.round_().clamp_(0, full))
    return sr.permute(2, 3, 4, 0, 1)


def _enlarge(
    network: torch.nn.Module, window: torch.Tensor, *, device: torch.device, grey: bool
) -> torch.Tensor:
    """One window ``(1, C, h, w)`` to ``(1, C, scale*h, scale*w)``, in its units, clamped and rounded."""
    full, channels = _full(window), window.shape[1]
    samples = window.to(device).to(torch.float32)
    colors = samples[:, : 3 if channels > 2 else 1]
    sr = network(_to_input(colors, full))
    if channels in (1, 3):
        return _to_units(sr, full, grey=grey)
    sr = _to_units(_weigh_by_alpha(sr, colors / full, samples[:, -1:] / full), full, grey=grey)
    alpha = _enlarge_alpha(network, samples[:, -1:], full).to(sr.dtype)
    return torch.cat([sr.expand(-1, channels - 1, -1, -1), alpha], dim=1)


def _weigh_by_alpha(sr: torch.Tensor, colors: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """The enlarged colours as if they had been premultiplied by alpha; unchanged where alpha is even.

    Between an opaque pixel and one that hardly shows, such as an object and its shadow, the colour is nearly
    the opaque one's. What bilinear enlarging says of that is added, within the values of the 3x3 LR pixels
    around.

    Args:
        sr: ``(1, 3, scale*h, scale*w)``, not clamped.
        colors: ``(1, 1 or 3, h, w)`` in [0, 1].
        alpha: ``(1, 1, h, w)`` in [0, 1].
    """
    edge = F.max_pool2d(alpha, 3, 1, 1) + F.max_pool2d(-alpha, 3, 1, 1) > 0
    if not edge.any():
        return sr
    scale = sr.shape[-1] // alpha.shape[-1]
    smooth, near = (partial(F.interpolate, scale_factor=scale, mode=mode) for mode in ("bilinear", "nearest"))
    weight, plain = smooth(alpha), smooth(colors)
    mixed = torch.where(weight > 0, smooth(colors * alpha) / weight.clamp_min(1e-6), plain)
    low, high = near(-F.max_pool2d(-colors, 3, 1, 1)), near(F.max_pool2d(colors, 3, 1, 1))
    weighed = torch.clamp(sr.to(torch.float32) + mixed - plain, low, high)
    return torch.where(near(edge.to(torch.float32)) > 0, weighed.to(sr.dtype), sr)


def _enlarge_alpha(network: torch.nn.Module, alpha: torch.Tensor, full: float) -> torch.Tensor:
    """Alpha ``(1, 1, h, w)`` enlarged as a grey picture, within the values of the 3x3 LR pixels around.

    So what is fully opaque or transparent stays so, exactly, and edges are as sharp as those of the colours.
    """
    scale = _scale(network)
    low, high = -F.max_pool2d(-alpha, 3, 1, 1), F.max_pool2d(alpha, 3, 1, 1)
    low, high = (F.interpolate(bound, scale_factor=scale, mode="nearest") for bound in (low, high))
    if torch.equal(low, high):
        return low
    sr = _to_units(network(_to_input(alpha, full)), full, grey=True)
    return torch.clamp(sr.to(torch.float32), low, high)


def _full(samples: torch.Tensor) -> float:
    """The largest value that samples of this dtype have."""
    return 1.0 if samples.is_floating_point() else float(torch.iinfo(samples.dtype).max)


def _to_input(samples: torch.Tensor, full: float) -> torch.Tensor:
    # float32 whatever the weights are: the generator keeps its skip from the input in lr's dtype.
    lr = samples / full
    return lr.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def _to_units(sr: torch.Tensor, full: float, *, grey: bool) -> torch.Tensor:
    if full != 255:
        sr = sr.to(torch.float32)  # 16 bits need more than bf16 or fp16 hold
    if grey:
        sr = sr.mean(dim=1, keepdim=True)
    if full == 1:
        return sr.clamp_(0, 1)
    return sr.mul_(full).round_().clamp_(0, full)


def default_tile_size(generator: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> int:
    """LR pixels a side such that the widest trunk tensor of a tile, halo included, is fast to allocate.

    For strips half as many: those that one strip leaves free seldom fit the next, which is a few rows higher.
    """
    if device.type != "cpu":
        return _LARGEST_TILE
    kernels = [weight for weight in generator.parameters() if weight.ndim == 4]
    channels = max((min(kernel.shape[:2]) for kernel in kernels), default=3)
    pixels = LARGEST_KEPT_BLOCK // (channels * dtype.itemsize)
    side = math.isqrt(pixels // 2) if _by_strips(generator) else math.isqrt(pixels) - 2 * _radius(generator)
    return max(_SMALLEST_TILE, min(_LARGEST_TILE, side))
