"""The preview shows what training gets, in a browser that runs nothing of it."""

import base64
import io
import re
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from p2p import config as conf
from p2p.data.augment import Augment
from p2p.data.format import read_index
from p2p.data.reader import Holes, Stream
from p2p.data.rows import read_rows
from p2p.data.shardset import ShardSet
from p2p.data.views import View, boundaries, painted
from p2p.sets import order_of
from shards import index, show
from tests.conftest import CLASSES, pair
from tests.test_index import add, encoded
from tests.test_translate import CHROMIUM, FLAGS

HOSTILE = (
    "<script>hacked = 1</script>",
    "<img src=x onerror='hacked = 1'>",
    '"><b onmouseover="hacked = 1">{{ 7 * 7 }}{% raw %}',
    "täsche 絵 🎒 &lt;",
)


def pictures(html: str) -> list[np.ndarray]:
    """All pictures of a page, in its order."""
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in data]


def fail(line: str) -> None:
    raise AssertionError(line)


def fed(shards: ShardSet, batch: int, load: int, crop: int, seed: int, start: int, count: int) -> list[dict]:
    """What the training's stream gives, sample by sample."""
    order = order_of(conf.Data(train="", batch=batch, load=load, crop=crop), seed, shards)
    augment = Augment(load, crop, mirror=True, seed=seed, masks=View(shards.index.classes).masks)
    stream = Stream(shards, order, augment, Holes(0, fail), batch, seed=seed)
    samples = []
    for one in stream.batches(start - start % batch, start + count):
        names = [name for name in ("x", "y", "instances") if name in one]
        for n, key in enumerate(one["keys"]):
            samples.append({"key": key, "position": one["position"] + n} | {name: one[name][n] for name in names})
    return [sample for sample in samples if start <= sample["position"] < start + count]


def image(picture: torch.Tensor) -> np.ndarray:
    return picture.expand(3, -1, -1).permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("batch", "start"), [(1, 0), (4, 40), (6, 21)])
def test_pairs_are_those_of_the_training(shard_folder, tmp_path, batch, start):
    out = tmp_path / "sheet.html"
    options = ["--load", "36", "--crop", "32", "--seed", "5", "--batch", str(batch), "--from", str(start)]
    assert show.main([str(shard_folder / "train"), "--out", str(out), *options, "--count", "10"]) == 0
    html = out.read_text()
    expected = fed(ShardSet(str(shard_folder / "train")), batch, 36, 32, 5, start, 10)
    shown = re.findall(r"<h2><span>(\d+)</span><small>position (\d+)</small></h2>\s*<p>epoch (\d+) · step (\d+)", html)
    assert [(key, int(p), int(e), int(s)) for key, p, e, s in shown] == [
        (one["key"], one["position"], one["position"] // 24, one["position"] // batch) for one in expected
    ]
    found = pictures(html)
    assert len(found) == 40
    for n, one in enumerate(expected):
        x, y, source_x, source_y = found[4 * n : 4 * n + 4]
        assert np.array_equal(x, image(one["x"]))
        assert np.array_equal(y, image(one["y"]))
        both = np.asarray(pair(int(one["key"])))
        assert np.array_equal(source_x, both[:, 32:])
        assert np.array_equal(source_y, both[:, :32])


def test_labels_are_painted_and_instances_outlined(label_folder, tmp_path):
    out = tmp_path / "sheet.html"
    options = ["--load", "40x40", "--crop", "32x32", "--seed", "3", "--count", "5"]
    assert show.main([str(label_folder / "train"), "--out", str(out), *options]) == 0
    expected = fed(ShardSet(str(label_folder / "train")), 1, 40, 32, 3, 0, 5)
    found = pictures(out.read_text())
    for n, one in enumerate(expected):
        x, lines, y, source_x, _ = found[5 * n : 5 * n + 5]
        assert np.array_equal(x, image(painted(one["x"][None])[0]))
        assert np.array_equal(y, image(one["y"]))
        assert np.array_equal(lines[..., 0] == 0, boundaries(one["instances"][None])[0, 0])
        colours = painted(torch.arange(CLASSES, dtype=torch.uint8).reshape(1, 1, 1, -1))[0].flatten(1).T.tolist()
        assert {tuple(colour) for colour in source_x.reshape(-1, 3).tolist()} <= {tuple(c) for c in colours}


def test_what_cannot_be_read_is_told(shard_folder, tmp_path, capsys):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "copy")
    row = read_rows(folder, read_index(folder).shards[0])[0]
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    data[int(row["offset"]) + 700] ^= 1
    (folder / "shard-000000.tar").write_bytes(data)
    out = tmp_path / "sheet.html"
    assert show.main([str(folder), "--out", str(out), "--load", "0", "--crop", "32"]) == 0
    assert "24 pairs, 1 of them unreadable" in capsys.readouterr().out
    html = out.read_text()
    assert html.count('class="hole"') == 1
    assert "shard-000000.tar at byte 0" in html
    assert len(pictures(html)) == 4 * 23
    assert show.main([str(folder), "--out", str(out), "--load", "30", "--crop", "40", "--count", "2"]) == 0
    assert "smaller than the crop of 40x40" in out.read_text()
    assert show.main([str(tmp_path / "nothing"), "--out", str(out)]) == 2
    assert "no index.json here" in capsys.readouterr().err


@pytest.fixture
def hostile(tmp_path):
    """A page of a set whose keys are what an attacker would call them."""
    folder = tmp_path / "set <b>&"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for n, key in enumerate(HOSTILE):
            add(tar, f"{key}.jpg", encoded(pair(n), "JPEG"))
    assert index.main([str(folder), "--pairs", "jpg", "--side", "left", "--processes", "1"]) == 0
    out = tmp_path / "sheet # ?.html"
    assert show.main([str(folder), "--out", str(out), "--count", "8"]) == 0
    return out


@pytest.mark.parametrize("width", [400, 1400])
def test_hostile_keys_are_text_in_a_browser(hostile, width):
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH: the page cannot be opened")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    complaints: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked.url[:5] in ("file:", "data:") or complaints.append(asked.url))
        page.goto(hostile.as_uri())
        keys = page.locator("h2 span").all_text_contents()
        sizes = page.evaluate("[...document.images].map(image => [image.naturalWidth, image.clientWidth > 0])")
        assert "set <b>&" in page.text_content("h1")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.scripts.length + document.querySelectorAll('b').length") == 0
        assert page.evaluate("window.hacked") is None
        browser.close()
    assert sorted(keys) == sorted(2 * HOSTILE)
    assert sizes == [[256, True], [256, True], [32, True], [32, True]] * 8
    assert complaints == []


@pytest.mark.parametrize("options", [["--crop", "big"], ["--count", "0"], ["--from", "-1"], []])
def test_mistakes_are_one_line(shard_folder, capsys, options):
    with pytest.raises(SystemExit) as stop:
        show.main([str(shard_folder / "train"), *options, *(["--out", "x.html"] if options else [])])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
