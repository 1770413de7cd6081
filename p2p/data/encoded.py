"""Encoded pictures as they come from a file: decoded in full, or the reason why not. No torch, for the packer."""

import re
from io import BytesIO

from PIL import Image, UnidentifiedImageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Files of a folder that are taken for pictures."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What PIL may try; never those that run programs, such as EPS."""


def decode(data: bytes) -> Image.Image:
    """Decode the first frame, all of it; not yet upright (EXIF).

    Raises:
        ValueError: the reason why it cannot be used, in words that do not change from run to run.
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
        raise ValueError(f"cannot be decoded ({first_line(error)})") from error
    if deep:
        raise ValueError("16-bit pictures are not supported; convert it to 8 bits")
    return image


def _has_16_bits(image: Image.Image) -> bool:
    # PIL cuts 16-bit colour down to RGB without a word; only the raw mode tells. BGR;16 is 5-6-5 bits.
    return re.search(r"(?<!BGR);16", str(getattr(image, "tile", ""))) is not None


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def on_white(image: Image.Image) -> Image.Image:
    """The picture with white where it is transparent."""
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image
