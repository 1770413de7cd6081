"""Encoded pictures and maps as they come from a file: decoded in full, or the reason why not. No torch, for packers."""

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Files of a folder that are taken for pictures."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What PIL may try; never those that run programs, such as EPS."""
WHOLE = re.compile(r"1|L(;[24])?|P(;[124])?|I;16[BN]?|I;16N?S|I;32[NS]")
"""PIL's raw modes that hold whole numbers as they are; others are turned round, cut, or byte-swapped on the way."""
STRETCHED = {"L;2": 85, "L;4": 17}
"""Raw modes of gray whose numbers PIL spreads over 0 to 255, and by what."""


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


def load(data: bytes) -> tuple[Image.Image, str]:
    """The first frame, all of it, not yet upright (EXIF), and how its pixels were stored: PIL's raw mode.

    Raises:
        ValueError: the reason why it cannot be used, in words that do not change from run to run.
    """
    if not data:
        raise ValueError("empty file (0 bytes)")
    try:
        image: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
        stored = raw_mode(image)
        image.load()
    except UnidentifiedImageError as error:
        raise ValueError("not an image") from error
    except Exception as error:  # PIL's readers raise whatever a damaged file makes them raise
        raise ValueError(f"cannot be decoded ({first_line(error)})") from error
    return image, stored


def raw_mode(image: Image.Image) -> str:
    """How PIL says that the pixels are stored; it cuts 16-bit colour down to RGB, and stretches 4-bit gray, without a
    word."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else image.mode
    first = arguments[0] if isinstance(arguments, tuple) else arguments
    return first if isinstance(first, str) else image.mode  # GIF has a number there


def decode(data: bytes) -> Image.Image:
    """Decode the first frame of a picture, all of it; not yet upright (EXIF).

    Raises:
        ValueError: the reason why it cannot be used, in words that do not change from run to run.
    """
    image, stored = load(data)
    if image.mode.startswith(("I", "F")) or (";16" in stored and stored != "BGR;16"):  # that one is 5-6-5 bits
        raise ValueError("more than 8 bits a channel are not supported; convert it to 8 bits")
    return image


def decode_ids(data: bytes) -> np.ndarray:
    """Decode a label or instance map: int32 `[H, W]`, upright, each number as it was stored.

    Indices into a palette are the numbers, whatever its colours; a 16-bit 33001 stays that.

    Raises:
        ValueError: the reason why it cannot be used, in words that do not change from run to run.
    """
    return ids(*load(data))


def ids(image: Image.Image, stored: str) -> np.ndarray:
    """The numbers of a map that `load` returned, as `decode_ids` does.

    Raises:
        ValueError: it has more than one channel, or loses numbers, or they are not 0 to 2,147,483,647.
    """
    if (channels := len(image.getbands())) > 1:
        raise ValueError(f"a label or instance map has one channel; this has {channels}")
    coding = "JPEG" if "jpeg" in str(image.info.get("compression", "")) else image.format  # TIFF may hold it
    if coding not in ("PNG", "TIFF") or not WHOLE.fullmatch(stored):
        what = f"this is {coding} of mode {stored}"
        raise ValueError(f"a label or instance map is PNG or TIFF of whole numbers, without loss; {what}")
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception as error:  # PIL raises whatever odd metadata makes it raise
        raise ValueError(f"cannot be turned upright ({first_line(error)})") from error
    numbers: np.ndarray = np.asarray(upright).astype(np.int32)
    if stored in STRETCHED:
        numbers //= STRETCHED[stored]
    if numbers.min() < 0:  # unsigned 32 bits come here too, for PIL's are signed
        raise ValueError("holds numbers below 0, or of 2147483648 and more")
    return numbers


def first_line(error: Exception) -> str:
    """What an exception says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def on_white(image: Image.Image) -> Image.Image:
    """The picture with white where it is transparent."""
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image
