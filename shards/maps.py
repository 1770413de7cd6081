"""Label maps and instance maps: check their numbers, decide whether the bytes can be kept, and write them anew."""

from io import BytesIO

import numpy as np
from PIL import Image

from p2p.data.encoded import ids, load
from p2p.data.format import CLASSES
from shards.pictures import Picture, png, why_converted

PNG_HOLDS = 2**16
"""Numbers from 0 on that a gray PNG can hold; of more, an instance map becomes a TIFF."""
NAMED = 5
"""Numbers of classes out of range that a message names."""


def look_labels(data: bytes, classes: int) -> tuple[Picture, bytes]:
    """Describe a label map as it will be packed, gray PNG of 8 bits with the numbers 0 to classes - 1; and its bytes.

    Raises:
        ValueError: it is no label map, or not of so few classes.
    """
    image, stored = load(data)
    numbers = ids(image, stored)
    if numbers.max() >= classes:
        raise ValueError(_out_of_range(np.unique(numbers[numbers >= classes]), classes))
    return _describe(numbers, why_converted(image, stored, ("L",)), data)


def _out_of_range(numbers: np.ndarray, classes: int) -> str:
    one, top = len(numbers) == 1, int(numbers[-1])
    named = ", ".join(str(number) for number in numbers[:NAMED]) + (" ..." if len(numbers) > NAMED else "")
    what = f"{'label' if one else 'labels'} {named} {'is' if one else 'are'} not below --classes {classes}"
    remedy = f"use --classes {top + 1} or" if top < CLASSES else f"there can be {CLASSES} at most;"
    return f"{what}; {remedy} mend the file"


def look_instances(data: bytes) -> tuple[Picture, bytes]:
    """Describe an instance map as it will be packed, gray PNG of 8 or 16 bits, or TIFF of 32; and its bytes.

    Raises:
        ValueError: it is no instance map.
    """
    image, stored = load(data)
    return _describe(ids(image, stored), why_converted(image, stored, ("L", "I;16B")), data)  # so are 16 bits in a PNG


def _describe(numbers: np.ndarray, converted: str, data: bytes) -> tuple[Picture, bytes]:
    height, width = numbers.shape
    picture = Picture("png" if numbers.max() < PNG_HOLDS else "tif", 1, height, width, converted)
    return picture, write_ids(numbers) if converted else data


def write_ids(numbers: np.ndarray) -> bytes:
    """Encode a map, int32 `[H, W]`, without loss and without metadata, in the fewest bits of 8, 16, 32 that hold it."""
    if (top := numbers.max()) < PNG_HOLDS:
        return png(Image.fromarray(numbers.astype(np.uint8 if top < 2**8 else np.uint16)))
    file = BytesIO()
    Image.fromarray(numbers).save(file, "TIFF", compression="tiff_adobe_deflate")
    return file.getvalue()
