"""One picture file: decode it fully, decide whether its bytes can be kept, and write it anew where not."""

import re
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
KEPT = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}
"""PIL formats whose bytes go into the tar as they are. MPO is how telephones call a JPEG with a preview."""

EXIF_ORIENTATION = 0x0112


class Picture(NamedTuple):
    """What a look at a file found; sizes are those of the upright picture, in pixels."""

    extension: str
    """In the tar: jpg or png."""
    channels: int
    height: int
    width: int
    converted: str
    """Why it is written anew; empty where the bytes are kept."""


def decode(data: bytes) -> Image.Image:
    """Decode the first frame, all of it.

    Raises:
        ValueError: the reason why it cannot be packed, in words that do not change from run to run.
    """
    if not data:
        raise ValueError("empty file (0 bytes)")
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
        deep = image.mode.startswith(("I", "F")) or _has_16_bits(image)
        image.load()
    except UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    except Exception as error:  # PIL's readers raise whatever a damaged file makes them raise
        raise ValueError(f"cannot be decoded ({_first_line(error)})") from error
    if deep:
        raise ValueError("16-bit pictures are not supported yet")
    return image


def _has_16_bits(image: Image.Image) -> bool:
    # PIL cuts 16-bit colour down to RGB without a word; only the raw mode tells. BGR;16 is 5-6-5 bits.
    return re.search(r"(?<!BGR);16", str(getattr(image, "tile", ""))) is not None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def look(image: Image.Image) -> Picture:
    """Describe a decoded picture as it will be packed.

    Raises:
        ValueError: its mode cannot be brought to gray or RGB.
    """
    try:
        converted = why_converted(image)
        packed = plain(image) if converted else image
    except Exception as error:  # as above
        raise ValueError(f"cannot be converted ({_first_line(error)})") from error
    extension = "png" if converted else KEPT[str(image.format)]
    return Picture(extension, len(packed.getbands()), packed.height, packed.width, converted)


def why_converted(image: Image.Image) -> str:
    """The reason why a picture's bytes cannot be kept; empty if they can."""
    if image.format not in KEPT:
        return str(image.format)
    if "transparency" in image.info:
        return f"{image.format} with transparency"
    if image.mode not in ("L", "RGB"):
        return f"{image.format} of mode {image.mode}"
    if image.getexif().get(EXIF_ORIENTATION, 1) in range(2, 9):
        return "EXIF orientation"
    return ""


def plain(image: Image.Image) -> Image.Image:
    """The picture upright, as 8-bit gray or RGB, on white where it is transparent."""
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    image = ImageOps.exif_transpose(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert(mode)


def png(image: Image.Image) -> bytes:
    """Encode without loss and without metadata."""
    file = BytesIO()
    Image.fromarray(np.asarray(image)).save(file, "PNG")
    return file.getvalue()
