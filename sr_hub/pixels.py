"""PIL images of any mode to arrays of grey or RGB samples, and the arithmetic of depth and alpha."""

import io
import struct
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

_BAND = 256  # rows that are worked on at once
_TO_MODE = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB"}


@dataclass(frozen=True, eq=False)
class Decoded:
    """Samples ``(H, W, 1-4)`` as `sr_hub.images.Picture` holds them, and what became of the rest."""

    pixels: np.ndarray
    icc_profile: bytes | None
    value_range: tuple[float, float] = (0.0, 1.0)
    notices: tuple[str, ...] = ()


def pixels_from_pil(image: Image.Image) -> Decoded:
    """The samples of a loaded PIL image, as uint8, uint16 or float32.

    1-bit becomes grey, palettes become RGB; CMYK, LAB, HSV and YCbCr become RGB, through their profile if
    there is one. Transparent colours and palette entries become alpha.

    Raises:
        ValueError: Float samples that are not finite.
    """
    profile = image.info.get("icc_profile") or None
    if image.mode in ("CMYK", "LAB", "HSV", "YCbCr"):
        converted, way = _to_srgb(image, profile)
        return Decoded(
            np.asarray(converted), _srgb_profile(), notices=(f"{image.mode} is converted to RGB by {way}",)
        )
    if image.mode == "F":
        samples, value_range = _fit_range(np.asarray(image))
        return Decoded(samples[..., None], profile, value_range)
    if image.mode == "I":
        return _from_integers(np.asarray(image), profile)
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)[..., None]
        key = image.info.get("transparency")
        if isinstance(key, int):
            pixels = np.concatenate([pixels, (pixels != key) * np.uint16(65535)], axis=2)
        return Decoded(pixels, profile)
    mode = _TO_MODE.get(image.mode, image.mode)
    if image.mode == "P":
        mode = "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    if image.mode == "1" and mode == "LA":
        image = image.convert("L")
    pixels = np.asarray(image if image.mode == mode else image.convert(mode))
    return Decoded(pixels if pixels.ndim == 3 else pixels[..., None], profile)


def round_to(dtype: type[np.uint8] | type[np.uint16], pixels: np.ndarray) -> np.ndarray:
    """The same samples on the full scale of uint8 or uint16, from uint8, uint16 or float in [0, 1]."""
    if pixels.dtype == dtype:
        return pixels
    highest = int(np.iinfo(dtype).max)
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) * highest + 32767) // 65535).astype(dtype)
    return np.rint(pixels * highest).astype(dtype)


def join_alpha(pixels: np.ndarray) -> np.ndarray:
    """The picture ``(H, W, 1 or 3)`` laid on white; unchanged where it has no alpha."""
    if pixels.shape[2] in (1, 3):
        return pixels
    full = 1.0 if pixels.dtype == np.float32 else float(np.iinfo(pixels.dtype).max)
    opacity = pixels[..., -1:].astype(np.float32) / np.float32(full)
    laid = pixels[..., :-1] * opacity + np.float32(full) * (1 - opacity)
    return laid if pixels.dtype == np.float32 else np.rint(laid).astype(pixels.dtype)


def is_grey(pixels: np.ndarray) -> bool:
    """Whether the picture ``(H, W, C)`` has no colour, stored as grey or as equal red, green and blue."""
    if pixels.shape[2] < 3:
        return True
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return np.array_equal(red, green) and np.array_equal(green, blue)


def extend_colors(pixels: np.ndarray) -> np.ndarray:
    """The colours ``(H, W, 1 or 3)`` of a picture with alpha, carried on into its transparent parts.

    What is stored there is invisible and often black or white. Enlarged as it is, it would bleed over the
    edge of what is visible and leave a fringe. Each transparent pixel gets the mean, weighted by alpha, of
    the visible pixels of the smallest block of 2, 4, 8, ... pixels around it that holds any (the "pull-push"
    way).
    """
    colors, hidden = pixels[..., :-1], pixels[..., -1:] == 0
    if not hidden.any() or hidden.all():
        return colors
    height, width = pixels.shape[:2]
    smaller = np.empty((-(-height // 2), -(-width // 2), pixels.shape[2]), pixels.dtype)
    for top in range(0, height, _BAND):
        half = slice(top // 2, (top + _BAND) // 2)
        smaller[half] = _halve(pixels[top : top + _BAND])
    filled, result = extend_colors(smaller), colors.copy()
    for top in range(0, height, _BAND):
        band = slice(top, min(top + _BAND, height))
        spread = filled[top // 2 : (top + _BAND) // 2].repeat(2, axis=0).repeat(2, axis=1)
        np.copyto(result[band], spread[: band.stop - top, :width], where=hidden[band])
    return result


def _halve(pixels: np.ndarray) -> np.ndarray:
    """Blocks of 2x2 pixels: the mean of their colours, weighted by alpha, and their highest alpha."""
    height, width, channels = pixels.shape
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)))
    blocks = padded.reshape(-(-height // 2), 2, -(-width // 2), 2, channels)
    weights = blocks[..., -1:].astype(np.float32)
    summed = (blocks[..., :-1] * weights).sum(axis=(1, 3), dtype=np.float32)
    means = summed / np.maximum(weights.sum(axis=(1, 3)), np.finfo(np.float32).tiny)
    colors = means if pixels.dtype.kind == "f" else np.rint(means)
    return np.concatenate([colors.astype(pixels.dtype), blocks[..., -1:].max(axis=(1, 3))], axis=2)


def _to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str]:
    source: Any = None
    if image.mode == "LAB":
        source = ImageCms.createProfile("LAB")
    elif image.mode == "CMYK" and profile:
        source = profile
    if source is not None:
        try:
            if isinstance(source, bytes):
                source = ImageCms.ImageCmsProfile(io.BytesIO(source))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            return cast(Image.Image, converted), "its profile"
        except (ImageCms.PyCMSError, OSError):
            if image.mode == "LAB":
                raise
            return image.convert("RGB"), "the plain formula, as its profile is broken"
    return image.convert("RGB"), "the plain formula, as it has no profile"


def _srgb_profile() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # Without the second it was made in (ICC.1, 7.2.8), so that equal pictures give equal files.
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def _fit_range(values: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    if not np.isfinite(values).all():
        raise ValueError("expected finite samples, got NaN or infinite ones")
    low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
    return ((values.astype(np.float64) - low) / (high - low)).astype(np.float32), (low, high)


def _from_integers(values: np.ndarray, profile: bytes | None) -> Decoded:
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high <= 65535:
        return Decoded(values.astype(np.uint16)[..., None], profile)
    scaled = (values.astype(np.float64) - low) * (65535 / max(1, high - low))
    notice = f"32-bit samples from {low} to {high} are mapped to 16 bits"
    return Decoded(np.rint(scaled).astype(np.uint16)[..., None], profile, notices=(notice,))
