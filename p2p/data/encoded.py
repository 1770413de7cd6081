"""Encoded pictures as they come from a file: decoded in full, or the reason why not. No torch, for the packer."""

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Files of a folder that are taken for pictures."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What PIL may try; never those that run programs, such as EPS."""


def walk(root: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden; links are followed, but not back to where they come from.

    Raises:
        OSError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:  # os.walk would pass over it
        raise error

    for folder, folders, names in os.walk(root, followlinks=True, onerror=fail):
        here = Path(folder).resolve()
        folders[:] = [f for f in folders if f[0] != "." and not here.is_relative_to((here / f).resolve())]
        yield from (Path(folder, name) for name in names if not name.startswith("."))


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
        raise ValueError("more than 8 bits a channel are not supported; convert it to 8 bits")
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
