"""JPEG without decoding its pixels: what a full decode would find, where the structure of the file tells it all."""

import re
from functools import lru_cache
from io import BytesIO

from PIL import Image

from shards.pictures import Picture, why_converted

NEXT = re.compile(rb"\xff[^\x00\xd0-\xd7]")
"""The first marker after compressed data, which holds FF 00 for FF, and restart markers."""
START, END, SCAN = 0xD8, b"\xff\xd9", 0xDA
SEQUENTIAL = (0xC0, 0xC1)
"""Frames whose pixels come in one scan, if that is followed by the end; others are decoded."""
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


def glance(data: bytes) -> Picture | None:
    """Describe a sequential JPEG that is whole and needs no conversion; None: only a decode can tell.

    libjpeg, and so PIL, refuses a file for its header, or because it ends before the pixels do. The first depends on
    the header alone, which many files share; the second cannot happen where the scan is followed by an end marker.
    Wrong bits inside a scan give wrong pixels, here as there.
    """
    scan = _find_scan(data)
    if not scan or (end := NEXT.search(data, scan)) is None or end[0] != END:
        return None
    return _describe(data[:scan])


def _find_scan(data: bytes) -> int:
    """Where the compressed data of the first scan begin; 0 if this is no sequential JPEG."""
    if data[:2] != bytes((0xFF, START)):
        return 0
    at, frame = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        frame = marker if marker in FRAMES else frame
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == SCAN:
            return at if frame in SEQUENTIAL else 0
    return 0


@lru_cache(maxsize=64)
def _describe(header: bytes) -> Picture | None:
    """What a decode finds in all files of this header: libjpeg takes the pixels that are missing for gray."""
    try:
        image = Image.open(BytesIO(header + END), formats=("JPEG",))
        mode, (width, height) = image.mode, image.size
        if why_converted(image, mode, ("L", "RGB")):
            return None
        image.draft(None, (1, 1))  # an eighth of the size costs next to nothing
        image.load()
    except Exception:  # PIL's readers raise whatever a damaged file makes them raise; the full decode says what
        return None
    return Picture("jpg", len(mode), height, width, "")
