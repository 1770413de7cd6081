"""The comparison of two revisions sees a single bit."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.golden import differences


def run_folder(folder, weights, figure=0.5):
    """What the comparison reads of a run."""
    checkpoint = folder / "checkpoints" / "000000000012"
    checkpoint.mkdir(parents=True)
    save_file(weights, checkpoint / "G.safetensors")
    (folder / "scalars.jsonl").write_text(json.dumps({"images": 12, "G/l1": figure, "time": id(folder)}) + "\n")
    return folder


def test_equal_runs_have_no_differences(tmp_path):
    old, new = (run_folder(tmp_path / name, {"net/w": torch.ones(3)}) for name in ("old", "new"))
    assert list(differences(old, new)) == []


@pytest.mark.parametrize(
    ("weights", "figure", "said"),
    [
        ({"net/w": torch.tensor([1.0, 1.0, 1.0 + 2**-23])}, 0.5, "net/w differs"),
        ({"net/w": torch.ones(3, dtype=torch.float64)}, 0.5, "net/w differs"),
        ({"net/w": torch.ones(3), "net/v": torch.ones(1)}, 0.5, "net/v is missing there"),
        ({"net/w": torch.ones(3)}, 0.5000001, "G/l1 0.5 there, 0.5000001 here"),
    ],
)
def test_one_bit_is_a_difference(weights, figure, said, tmp_path):
    old = run_folder(tmp_path / "old", {"net/w": torch.ones(3)})
    found = list(differences(old, run_folder(tmp_path / "new", weights, figure)))
    assert len(found) == 1
    assert found[0].endswith(said)


def test_a_run_that_wrote_nothing_is_a_difference(tmp_path):
    old = run_folder(tmp_path / "old", {"net/w": torch.ones(3)})
    new = run_folder(tmp_path / "new", {"net/w": torch.ones(3)})
    (new / "checkpoints" / "000000000012" / "G.safetensors").unlink()
    assert any("files:" in line for line in differences(old, new))
