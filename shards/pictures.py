"""One decoded picture: decide whether its bytes can be kept, and write it anew where not."""

from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from p2p.data.encoded import first_line, on_white

KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}
"""PIL formats whose bytes go into the tar as they are. MPO is how telephones call a JPEG with a preview."""

EXIF_ORIENTATION = 0x0112


class Picture(NamedTuple):
    """What a look at a file found; sizes are those of the upright picture, in pixels."""

    extension: str
    """In the tar: jpg or png, or tif of an instance map."""
    channels: int
    height: int
    width: int
    converted: str
    """Why it is written anew; empty where the bytes are kept."""


def look(image: Image.Image, data: bytes) -> tuple[Picture, bytes]:
    """Describe a decoded picture as it will be packed, and the bytes of that: its own `data`, or a PNG.

    Raises:
        ValueError: its mode cannot be brought to gray or RGB.
    """
    try:
        converted = why_converted(image, image.mode, ("L", "RGB"))
        packed = plain(image) if converted else image
    except Exception as error:  # PIL raises whatever an odd file makes it raise
        raise ValueError(f"cannot be converted ({first_line(error)})") from error
    extension = "png" if converted else KEPT[str(image.format)]
    picture = Picture(extension, len(packed.getbands()), packed.height, packed.width, converted)
    return picture, png(packed) if converted else data


def why_converted(image: Image.Image, mode: str, kept: tuple[str, ...]) -> str:
    """The reason why the bytes of a picture cannot be kept; empty if they can, as with a mode of `kept`."""
    if image.format not in KEPT:
        return str(image.format)
    if "transparency" in image.info:
        return f"{image.format} with transparency"
    if mode not in kept:
        return f"{image.format} of mode {mode}"
    if image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9):
        return "EXIF orientation"
    return ""


def plain(image: Image.Image) -> Image.Image:
    """The picture upright, as 8-bit gray or RGB, on white where it is transparent."""
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    return on_white(ImageOps.exif_transpose(image)).convert(mode)


def png(image: Image.Image) -> bytes:
    """Encode without loss and without metadata."""
    file = BytesIO()
    Image.fromarray(np.asarray(image)).save(file, "PNG")
    return file.getvalue()
