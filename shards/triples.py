"""Where label maps, instance maps and photos lie: pix2pixHD's folders or Cityscapes' own."""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from shards.listing import SPLITS, Part, Source, is_picture
from shards.sources import SIDES, Settings
from shards.trees import Tree

LONGEST_MEMBER = "inst.png"


class Naming(NamedTuple):
    """How a source calls its folders and files; each is of x, of the instance map, of y."""

    folders: tuple[str, str, str]
    """Below ROOT, for a phase."""
    stems: tuple[str, str, str]
    """Patterns as of `Part`."""
    skips: tuple[str, str, str] = ("(?!)", "(?!)", "(?!)")


PIX2PIXHD = Naming(
    ("{}_label", "{}_inst", "{}_img"),
    (
        "(.+?)(?:_gt(?:Fine|Coarse)_labelIds)?",
        "(.+?)(?:_gt(?:Fine|Coarse)_instanceIds)?",
        "(.+?)(?:_leftImg8bit)?",
    ),
)
PICTURES = Naming(
    ("{}_A", "{}_inst", "{}_B"),
    ("(.+?)(?:_gt(?:Fine|Coarse)_color)?", PIX2PIXHD.stems[1], PIX2PIXHD.stems[2]),
)
CITYSCAPES = Naming(
    ("gtFine/{}", "gtFine/{}", "leftImg8bit/{}"),
    ("(.+)_gtFine_labelIds", "(.+)_gtFine_instanceIds", "(.+)_leftImg8bit"),
    # of a folder that both share, strangers are named once, as label maps
    (r".+_gtFine_(?!labelIds\.)\w+\.(?:png|json)", r"(?!.+_gtFine_instanceIds\.\w+$).*", "(?!)"),
)


def find_phases(root: Tree, settings: Settings) -> Source:
    """The phases train, val and test that have photos, and whether they have instance maps.

    Raises:
        ValueError: ROOT is not of a known form, a folder is missing, or `--val` does not go with its phases.
    """
    naming = _find_naming(root, settings.classes)
    phases = {phase: _parts(root, naming, phase, settings) for phase in SPLITS if _has(root, naming, phase)}
    notes = []
    if "test" in phases and not _holds_pictures(phases["test"][-1].root):
        notes.append(f"{root}: test has no photos and is not packed; labels alone need no packing")
        del phases["test"]
    if not phases:
        raise ValueError(notes[0])
    for part in (part for x, _, y in phases.values() for part in (x, y)):
        if not part.root.is_dir():
            raise ValueError(f"{part.root}: no such folder; add it, or take away what belongs to it")
    if settings.val and list(phases) != ["train"]:
        raise ValueError(f"{root}: is divided in {', '.join(phases)} already; leave --val out")
    instances = settings.instances and _have_instances(phases)
    if settings.instances and not instances:
        notes.append(f"{root}: has no instance maps ({naming.folders[1].format(next(iter(phases)))}); packed without")
    sets = {"" if settings.val else name: parts if instances else parts[::2] for name, parts in phases.items()}
    return Source(sets, instances, tuple(notes))


def _find_naming(root: Tree, classes: int) -> Naming:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give one that holds label maps and photos")
    known = (PIX2PIXHD, CITYSCAPES, PICTURES)
    fits = [naming for naming in known if any(_has(root, naming, phase) for phase in SPLITS)]
    wanted = [naming for naming in fits if (naming is not PICTURES) == (classes > 0)]
    if len(wanted) == 1:
        return wanted[0]
    if wanted:
        raise ValueError(f"{root}: holds both train_label and gtFine; move one of them away")
    if fits:
        what = "pictures, no label maps; give --classes 0" if classes else "label maps; give --classes, such as 35"
        raise ValueError(f"{root}: holds {what}")
    folders = "train_label and train_img, or gtFine and leftImg8bit" if classes else "train_A and train_B"
    raise ValueError(f"{root}: holds no {folders}; give the folder that does")


def _has(root: Tree, naming: Naming, phase: str) -> bool:
    return any((root / folder.format(phase)).is_dir() for folder in naming.folders[::2])


def _parts(root: Tree, naming: Naming, phase: str, settings: Settings) -> tuple[Part, ...]:
    folders = [folder.format(phase) for folder in naming.folders]
    missing = [f"no {settings.title(side)} in {name}" for side, name in zip(SIDES["labels"], folders, strict=True)]
    each = zip(folders, missing, naming.stems, naming.skips, strict=True)
    return tuple(Part(root / folder, lacks, stem, skip, LONGEST_MEMBER) for folder, lacks, stem, skip in each)


def _holds_pictures(folder: Tree) -> bool:
    return folder.is_dir() and any(is_picture(name) for name in _names(folder))


def _have_instances(phases: dict[str, tuple[Part, ...]]) -> bool:
    have = {part.root: _has_instances(x, part) for x, part, _ in phases.values()}
    if any(have.values()) and not all(have.values()):
        lacks, holds = (next(root for root in have if have[root] == wanted) for wanted in (False, True))
        raise ValueError(f"{lacks}: no instance maps here, but in {holds}; add them, or give --no-instances")
    return any(have.values())


def _has_instances(x: Part, part: Part) -> bool:
    if part.root != x.root:
        return part.root.is_dir()
    return any(re.fullmatch(part.stem, os.path.splitext(name)[0], re.DOTALL) for name in _names(part.root))


def _names(folder: Tree) -> Iterator[str]:
    return (file.name.rpartition("/")[2] for file in folder.files())
