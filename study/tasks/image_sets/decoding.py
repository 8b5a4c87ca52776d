"""How an encoded image becomes pixels, with Pillow.

Refuses to guess: an image that cannot be read is an error that names it. Image files may come from
anywhere: only formats that Pillow decodes by itself are read (none that calls another program, as EPS
does), and none whose pixels would take more memory than a photograph's.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps

Encoded = bytes | Path | np.ndarray

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# A quarter of a GiB while it is decoded, in each of up to 16 threads; large cameras give 2**26.
MAX_PIXELS: Final = 2**26


def to_pixels(encoded: Encoded, where: str, image_size: int | None) -> np.ndarray:
    """Decode one image: uint8, shape (3, h, w), where h = w = `image_size` unless that is None.

    Resizing is Pillow's bilinear with antialiasing, after the longer side is cut evenly to a square.
    Grey becomes three equal channels, 16-bit grey keeps its upper 8 bits, transparent parts become
    white, and a camera's orientation tag is obeyed. Raises ValueError, naming `where`.
    """
    try:
        if isinstance(encoded, np.ndarray):
            picture = Image.fromarray(encoded)
        else:
            file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
            opened = Image.open(file, formats=FORMATS)
            _refuse_large(opened)
            picture = ImageOps.exif_transpose(opened)
        picture.load()
    except Exception as error:  # Pillow's decoders raise whatever their parsing ran into.
        raise ValueError(f"{where}: not a readable image ({error})") from error
    picture = _as_rgb(picture, where)
    if image_size is not None and picture.size != (image_size, image_size):
        picture = ImageOps.fit(picture, (image_size, image_size), method=Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _refuse_large(picture: Image.Image) -> None:
    width, height = picture.size  # as its head says; nothing is decoded yet
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width:,}×{height:,} pixels, the limit is {MAX_PIXELS:,} in all")


def _as_rgb(picture: Image.Image, where: str) -> Image.Image:
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise ValueError(f"{where}: {picture.mode!r} pixels (32 bits) have no known range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
