"""What made a picture: written into it and read back.

It stands in the XMP packet, which PNG, TIFF, JPEG, WebP and AVIF hold, beside IPTC's mark for pictures with
synthetic parts, and the program's name in EXIF.
"""

import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from html import escape, unescape
from typing import Any

import torch
from PIL import Image

from sr_hub.exif import exif_bytes
from sr_hub.images import ImageError, Picture, open_image

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term: part of the picture was made by a trained network."""

_NAMESPACE = "https://pypi.org/project/sr_hub/provenance/1.0/"
_PROCESSING_SOFTWARE = 0x000B  # of EXIF; "Software" stays the camera's
_OURS = re.compile(rb'<rdf:Description[^>]*xmlns:sr_hub="[^>]*>.*?</rdf:Description>\s*', re.DOTALL)
_THEIRS = re.compile(
    rb'\sIptc4xmpExt:DigitalSourceType="[^"]*"'
    rb"|<Iptc4xmpExt:DigitalSourceType>.*?</Iptc4xmpExt:DigitalSourceType>",
    re.DOTALL,
)
_EMPTY = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
    b'</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end="w"?>'
)


def hash_weights(generator: torch.nn.Module) -> str:
    """SHA-256 of a network's weights, in hexadecimal, whatever device they are on."""
    digest = hashlib.sha256()
    for name, value in sorted(generator.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def program_name() -> str:
    """This program and its version."""
    return f"sr_hub {sys.modules['sr_hub'].__version__}"


def add_provenance(picture: Picture, facts: dict[str, Any]) -> Picture:
    """The picture with `facts`, which JSON holds, in its XMP packet, in the place of earlier ones."""
    entry = (
        f'<rdf:Description rdf:about="" xmlns:sr_hub="{_NAMESPACE}" '
        f'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">\n'
        f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>\n"
        f"<sr_hub:provenance>{escape(json.dumps(facts, sort_keys=True), quote=False)}</sr_hub:provenance>\n"
        f"</rdf:Description>\n"
    ).encode()
    packet = picture.xmp if picture.xmp and b"</rdf:RDF>" in picture.xmp else _EMPTY
    packet = _THEIRS.sub(b"", _OURS.sub(b"", packet))
    before, end, after = packet.rpartition(b"</rdf:RDF>")
    exif = Image.Exif()
    if picture.exif:
        exif.load(picture.exif)
    exif[_PROCESSING_SOFTWARE] = program_name()
    return replace(picture, xmp=before + entry + end + after, exif=exif_bytes(exif))


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What `add_provenance` wrote into a picture file; None if it holds nothing of that kind.

    Raises:
        ImageError: If there is no such file or it is no image.
    """
    with open_image(path, max_pixels=2**62) as image:  # of which none is decoded
        packet = image.info.get("xmp")
    match = re.search(rb"<sr_hub:provenance>(.*?)</sr_hub:provenance>", packet or b"", re.DOTALL)
    if not match:
        return None
    try:
        facts = json.loads(unescape(match[1].decode("utf-8")))
    except ValueError as error:
        raise ImageError(f"{path}: its provenance is broken: {error}") from error
    return facts if isinstance(facts, dict) else {"provenance": facts}
