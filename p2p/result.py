"""The folder of a result: `input`, `output` and `target` with a PNG for each picture, index.html, result.json."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.io import encode_png

from p2p.gallery import PAGE

FILE = "result.json"
"""What was done, for programs; where it lies, the folder is a result."""
KINDS = ("input", "output", "target")
"""Sub-folders."""


def claim(out: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Make an empty result of `out`. Only what a result holds is ever removed, and only when asked: an old and a
    new result in one folder would be taken for one.

    Raises:
        ValueError: it is something else, or lies in an input, or an input in it.
    """
    for path in inputs:
        source, target = path.resolve(), out.resolve()
        if source.is_relative_to(target) or target.is_relative_to(source):
            raise ValueError(f"{out}: --out and the input {path} lie in each other; give a folder outside")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; give a folder")
    held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    ours = {*KINDS, FILE, PAGE, f".{FILE}.tmp", f".{PAGE}.tmp"}
    if strangers := [name for name in held if name not in ours or FILE not in held]:
        raise ValueError(f"{out}: holds other files ({strangers[0]}); give a new or an empty folder")
    if held and not overwrite:
        raise ValueError(f"{out}: holds an earlier result; give a new folder, or --overwrite to replace it")
    clear(out)


def clear(out: Path) -> None:
    """Remove an earlier result, and leave the mark of one that is not complete."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out, {"complete": False})
    (out / PAGE).unlink(missing_ok=True)
    for kind in KINDS:
        if (out / kind).exists():
            shutil.rmtree(out / kind)


def write_json(out: Path, content: Mapping[str, Any]) -> None:
    """Write the file that says what was done."""
    write_aside(out / FILE, json.dumps(content, indent=1).encode())


def write_png(path: Path, picture: Tensor) -> None:
    """Write uint8 `[1 or 3,H,W]`, making the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, encode_png(picture).numpy().tobytes())


def write_aside(path: Path, data: bytes) -> None:
    """Write under a hidden name, and rename: the file is complete or absent."""
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_bytes(data)
    os.replace(hidden, path)
