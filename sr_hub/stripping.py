"""Pictures without anything but their samples."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image, ImageCms

from sr_hub.images import Picture
from sr_hub.png_chunks import other_than_srgb


def strip_metadata(picture: Picture) -> tuple[Picture, tuple[str, ...]]:
    """The picture without profile, EXIF, XMP and resolution, and what is to be said of that.

    Without its profile a picture is taken for sRGB, so its colours are converted to that before. 16-bit and
    float samples, which cannot be converted here, keep a profile; chunks of PNG that tell of other colours
    stay, too.
    """
    bare = replace(picture, exif=None, xmp=None, dpi=None, png_color=())
    if picture.icc_profile is None:
        if not other_than_srgb(picture.png_color):
            return bare, ()
        said = "its colour chunks are kept: they tell of other colours than sRGB's"
        return replace(bare, png_color=picture.png_color), (said,)
    if picture.pixels.dtype != np.uint8:
        return bare, ("the colour profile is kept: samples of more than 8 bits cannot be converted to sRGB",)
    try:
        pixels = _to_srgb(picture.pixels, picture.icc_profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return replace(bare, icc_profile=None), ("its colour profile is broken and is dropped",)
    return replace(bare, pixels=pixels, icc_profile=None), ()


def _to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    colors = pixels[..., :-1] if pixels.shape[2] in (2, 4) else pixels
    image = Image.fromarray(colors[..., 0] if colors.shape[2] == 1 else np.ascontiguousarray(colors))
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None
    result = np.asarray(converted)
    if colors.shape[2] == 1:
        result = result[..., 1:2]
    return np.concatenate([result, pixels[..., colors.shape[2] :]], axis=2)
