"""The comparison of two revisions sees a single bit."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.golden import differences


def run_folder(folder, weights, figure=0.5, more=()):
    """What the comparison reads of a run."""
    checkpoint = folder / "checkpoints" / "000000000012"
    checkpoint.mkdir(parents=True)
    save_file(weights, checkpoint / "G.safetensors")
    lines = [{"images": 12, "G/l1": figure, "time": id(folder)}, *more]
    (folder / "scalars.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
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


def test_a_lost_line_and_a_lost_figure_are_differences(tmp_path):
    one = {"net/w": torch.ones(3)}
    old = run_folder(tmp_path / "old", one, more=[{"images": 24, "G/l1": 0.1}])
    assert any("2 lines of figures there, 1 here" in line for line in differences(old, run_folder(tmp_path / "a", one)))
    new = run_folder(tmp_path / "b", one, more=[{"images": 24}])
    assert list(differences(old, new)) == ["line 1 of the figures: G/l1 0.1 there, None here"]


def test_a_run_that_wrote_nothing_is_a_difference(tmp_path):
    old = run_folder(tmp_path / "old", {"net/w": torch.ones(3)})
    new = run_folder(tmp_path / "new", {"net/w": torch.ones(3)})
    (new / "checkpoints" / "000000000012" / "G.safetensors").unlink()
    assert any("files:" in line for line in differences(old, new))
