"""What the README shows a newcomer works as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from launch import demo
from launch.train import main as train
from tests.conftest import SHARED, pair, write_pairs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_load_a_checkpoint_and_translate_a_picture(config_file, tmp_path, monkeypatch):
    assert train(["--config", str(config_file), "--run", str(tmp_path / "runs" / "bags")]) == 0
    pair(1, side=50).crop((50, 0, 100, 50)).save(tmp_path / "edges.png")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(PYTHON[0], names)
    assert Image.open(tmp_path / "bag.png").size == (50, 50)
    assert Image.open(tmp_path / "bag.png").mode == "RGB"


def test_train_a_task_of_ones_own(capsys):
    torch.manual_seed(0)
    names: dict = {}
    exec(PYTHON[1], names)
    said = capsys.readouterr().out
    errors = [float(x) for x in re.findall(r"'G/l2': ([\d.]+)", said)]
    assert errors[-1] < 0.7 * errors[0]


def test_the_library_examples_are_short():
    assert all(len(code.strip().splitlines()) <= 16 for code in PYTHON[:2])


def run_demo(tmp_path, *arguments):
    command = [sys.executable, "-m", "launch.demo", "--out", str(tmp_path / "out"), "--images", "16", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def check_demo(done, out):
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert re.search(r"trained pix2pix on \d+ pairs, 16 images, 2 workers, .* L1 0\.\d+ -> 0\.\d+ .*index\.html", last)
    assert (out / "gallery" / "index.html").is_file()
    assert list((out / "gallery" / "output").rglob("*.png"))


def test_the_demo_on_its_own_photographs(tmp_path):
    """`make demo`, but for the number of images."""
    check_demo(run_demo(tmp_path), tmp_path / "out")
    again = run_demo(tmp_path)
    assert again.returncode == 0  # an earlier demo is replaced


def test_the_demo_on_a_folder_of_pairs(tmp_path):
    folder = write_pairs(tmp_path / "pairs", 12, side=128)
    done = run_demo(tmp_path, "--data", str(folder))
    check_demo(done, tmp_path / "out")
    assert "--input right" in done.stdout  # the outline, not the colours


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder with real pairs is not there")
def test_the_plainer_side_of_real_pairs():
    for name in ("edges2handbags", "edges2shoes", "facades"):
        pictures = sorted((SHARED / name / "train").glob("*"))[:20]
        assert demo.plainer_side(pictures) == "right", name


def test_the_demo_overwrites_nothing_of_others(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    done = run_demo(tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not empty and no earlier demo" in done.stderr
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out" / "run").mkdir(parents=True)
    (tmp_path / "out" / ".p2p-demo").touch()
    (tmp_path / "empty").mkdir()
    mine = write_pairs(tmp_path / "out" / "run" / "mine", 1)
    for data, says in ((tmp_path / "empty", "no pictures here"), (mine, "lies in the data, or the data in it")):
        done = run_demo(tmp_path, "--data", str(data))
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert says in done.stderr
    assert len(list(mine.iterdir())) == 1
