"""What a sample must have: which file is which member, and what the header of its picture says."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from p2p.data.encoded import FORMATS, first_line, raw_mode
from p2p.data.format import Index, Layout
from p2p.data.tars import split_name
from shards.scan import Sample

CALLED = {"a": "input", "b": "target", "ab": "pair", "inst": "instance map"}
READ = {"a": ("JPEG", "PNG"), "b": ("JPEG", "PNG"), "ab": ("JPEG", "PNG"), "inst": ("PNG", "TIFF")}
"""PIL's names of what training decodes, by role."""
GRAY = ("1", "L", "LA", "I;16", "I")
UPRIGHT, EXIF_ORIENTATION = 1, 0x0112


class Look(NamedTuple):
    """What the header of a picture says."""

    height: int
    width: int
    channels: int
    note: str = ""
    """What training will not do with it; empty: nothing."""


@dataclass(frozen=True)
class Roles:
    """Which members a set has, and what they are."""

    layout: Layout
    members: Mapping[str, str]
    """As `Index.members`."""
    classes: int = 0
    instances: bool = False

    @property
    def needed(self) -> tuple[str, ...]:
        """The roles of every sample."""
        return (*(("a", "b") if self.layout == "two" else ("ab",)), *(("inst",) if self.instances else ()))

    def is_map(self, role: str) -> bool:
        """Whether it holds numbers, not colours."""
        return role == "inst" or (role == "a" and self.classes > 0)

    def pick(self, sample: Sample) -> dict[str, bytes]:
        """The bytes of each role.

        Raises:
            ValueError: one is missing, or two files have the same extension.
        """
        found: dict[str, bytes] = {}
        for entry in sample.entries:
            _, extension = split_name(entry.name) or (b"", "")
            if extension in found:
                raise ValueError(f"has two files with the extension {extension}")
            start = entry.at - sample.at
            found[extension] = sample.run[start : start + entry.size]
        chosen = self.members or {name.partition(".")[0]: name for name in found}
        if lacks := [role for role in self.needed if chosen.get(role) not in found]:
            named = (f"{CALLED[role]} ({chosen.get(role, f'{role}.*')})" for role in lacks)
            raise ValueError(f"lacks its {' and '.join(named)}; it has {', '.join(sorted(found))}")
        return {role: found[chosen[role]] for role in self.needed}

    def look(self, role: str, data: bytes) -> Look:
        """Height, width and channels of a member by its header; of a pair, those of the whole.

        Raises:
            ValueError: training could not read it; the reason.
        """
        try:
            image = Image.open(BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise ValueError("is not an image" if data else "is an empty file") from error
        except Exception as error:  # PIL raises whatever a damaged file makes it raise
            raise ValueError(f"cannot be read ({first_line(error)})") from error
        known = {"MPO": "JPEG"}.get(str(image.format), str(image.format))
        if known not in READ[role]:
            raise ValueError(f"is {known}; training reads {' and '.join(READ[role])}: pack the set anew")
        self._check_mode(role, image)
        return Look(image.height, image.width, 1 if image.mode in GRAY else 3, "" if role == "inst" else _note(image))

    def _check_mode(self, role: str, image: Image.Image) -> None:
        raw = raw_mode(image)
        if self.is_map(role) and role == "a" and (image.format, image.mode, raw) != ("PNG", "L", "L"):
            raise ValueError(f"is {image.format} of mode {raw}; a label map is a gray PNG of 8 bits: pack the set anew")
        if role != "inst" and (image.mode.startswith(("I", "F")) or ";16" in raw):
            raise ValueError("has more than 8 bits a channel: pack the set anew")


def side_sizes(looks: Mapping[str, Look]) -> tuple[int, int]:
    """(height, width) of one side, the same of all members.

    Raises:
        ValueError: they differ, or a pair has no middle.
    """
    if "ab" in looks:
        height, width = looks["ab"][:2]
        if width % 2:
            raise ValueError(f"width {width} is odd; it must be twice the width of one side")
        return height, width // 2
    if len({look[:2] for look in looks.values()}) > 1:
        each = (f"{CALLED[role]} is {look.height}x{look.width}" for role, look in looks.items())
        raise ValueError(f"{', '.join(each)}; they must be equal")
    return looks["b"][:2]


def roles_of(index: Index) -> Roles:
    """Those of a set."""
    return Roles(index.layout, index.members, index.classes, index.instances)


def _note(image: Image.Image) -> str:
    """What training will not do with a picture."""
    with suppress(Exception):  # PIL raises whatever odd metadata makes it raise
        if "exif" in image.info and image.getexif().get(EXIF_ORIENTATION, UPRIGHT) != UPRIGHT:
            return "an EXIF orientation, which is not applied"
    return "transparency, which is not laid on white" if image.has_transparency_data else ""
