"""What many tests need: small real pictures, packed for real."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards import pack

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test workers share two cores
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pair(seed: int, side: int = 32) -> Image.Image:
    """A side-by-side pair: on the left smooth colours, on the right their outline."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    photo = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int16)
    edges = np.abs(np.diff(photo.sum(2), axis=1, prepend=0)) < 60
    both = np.concatenate([photo, np.repeat(edges[:, :, None] * 255, 3, axis=2)], axis=1)
    return Image.fromarray(both.astype(np.uint8))


def write_pairs(folder: Path, count: int, side: int = 32, first: int = 0) -> Path:
    """`count` PNG pairs in a new folder."""
    folder.mkdir(parents=True)
    for i in range(first, first + count):
        pair(i, side).save(folder / f"{i:04d}.png")
    return folder


@pytest.fixture(scope="session")
def shard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 24 training and 6 validation pairs, the right half the input, 7 pairs a shard. Do not change them."""
    root = tmp_path_factory.mktemp("shards")
    write_pairs(root / "pairs" / "train", 24)
    write_pairs(root / "pairs" / "val", 6, first=100)
    assert pack.main(["pairs", str(root / "pairs"), str(root / "set"), "--input", "right", "--samples", "7"]) == 0
    return root / "set"


def small_tree(shards: Path) -> dict[str, Any]:
    """Settings of a small experiment in float32: 32 pixels, batch 4, 2 epochs of 24 pairs."""
    return {
        "data": {
            "train": str(shards / "train"), "val": str(shards / "val"),
            "batch": 4, "load": 36, "crop": 32, "mirror": True,
        },
        "G": {"name": "unet", "size": 16, "width": 4, "group": 2},
        "D": {"name": "patch", "field": 16, "width": 4, "group": 2},
        "schedule": {"name": "linear", "epochs": 1, "decay": 1},
        "engine": {"precision": "fp32"},
        "every": {"log": 8, "validate": 24, "pictures": 24, "save": 24},
    }  # fmt: skip


CLASSES = 4
"""Of the small label maps."""


def write_maps(root: Path, phase: str, count: int, side: int = 32, first: int = 0) -> None:
    """`count` triples in pix2pixHD's folders: labels in blocks, 16-bit instances of them (some ids of 32,768 and more),
    and photos whose colours follow both."""
    for kind in ("label", "inst", "img"):
        (root / f"{phase}_{kind}").mkdir(parents=True)
    colours = np.random.default_rng(1).integers(40, 216, (CLASSES, 3))
    for i in range(first, first + count):
        generator = np.random.default_rng(i)
        label = generator.integers(0, CLASSES, (4, 4)).repeat(side // 4, 0).repeat(side // 4, 1)
        other = generator.integers(0, 3, (2, 2)).repeat(side // 2, 0).repeat(side // 2, 1)
        photo = colours[label] + 20 * other[..., None] - 20
        Image.fromarray(label.astype(np.uint8)).save(root / f"{phase}_label" / f"{i:04d}.png")
        Image.fromarray((label * 11_000 + other).astype(np.uint16)).save(root / f"{phase}_inst" / f"{i:04d}.png")
        Image.fromarray(photo.astype(np.uint8)).save(root / f"{phase}_img" / f"{i:04d}.png")


@pytest.fixture(scope="session")
def label_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `shard_folder`, of label maps of 4 classes with instances. Do not change them."""
    root = tmp_path_factory.mktemp("labels")
    write_maps(root / "maps", "train", 24)
    write_maps(root / "maps", "val", 6, first=100)
    command = ["labels", str(root / "maps"), str(root / "set"), "--classes", str(CLASSES), "--samples", "7"]
    assert pack.main(command) == 0
    return root / "set"


def hd_tree(shards: Path) -> dict[str, Any]:
    """Settings of a small pix2pixHD: 12 images of the global net at 16 pixels, 12 of the enhancer alone at 32, 24 of
    everything; with instance features, without VGG."""
    return small_tree(shards) | {
        "task": {"name": "pix2pixhd", "perceptual": 0.0, "features": 2},
        "G": {"name": "local", "width": 4, "downs": 1, "blocks": 1, "local_blocks": 1, "bias": False},
        "D": {"name": "multiscale", "scales": 2, "field": 16, "width": 4, "bias": False},
        "E": {"width": 4, "downs": 1, "bias": False},
        "coarse": [{"name": "linear", "epochs": 0.25, "decay": 0.25}],
        "schedule": {"name": "linear", "epochs": 0.75, "decay": 0.75, "alone": 0.5},
    }


@pytest.fixture
def config_file(tmp_path: Path, shard_folder: Path) -> Path:
    """A file with the settings of `small_tree`."""
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(small_tree(shard_folder)))  # JSON is YAML
    return path
