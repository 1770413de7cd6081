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


@pytest.fixture
def config_file(tmp_path: Path, shard_folder: Path) -> Path:
    """A file with the settings of `small_tree`."""
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(small_tree(shard_folder)))  # JSON is YAML
    return path
