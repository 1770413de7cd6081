"""Translation: the picture is G's and nobody else's, nothing is lost or escapes, and the page can be looked at."""

import dataclasses
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from launch.translate import main
from p2p import gallery
from p2p.config import Inference
from p2p.data.augment import Augment
from p2p.data.format import Index, read_index
from p2p.data.shardset import ShardSet
from p2p.data.views import to_float, to_uint8
from p2p.evaluate import evaluate
from p2p.generator import Generator, load
from p2p.metrics import METRICS
from p2p.names import Names
from p2p.spec import Spec
from shards import pack
from shards.writer import write_shard

ROOT = Path(__file__).parents[1]
HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"' onload=window.hacked=1 '\"",
    "{{ 7*7 }} {% raw %}",
    "100% #1 ?q=2&x;y",
    "%2e%2e ä 絵 🎒",
    "a\\b:c*|",
    "sub folder/#x/y",
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def noise(seed: int, width: int = 32, height: int = 32, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(values, "RGBA")
    return (image if mode.endswith("A") else image.convert("RGB")).convert(mode)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def make_generator(path: Path, channels: tuple[int, int] = (3, 3)) -> Generator:
    torch.manual_seed(1)
    spec = Spec("unet", {"size": 16, "width": 4}, channels, crop=16)
    G = Generator(spec.build(), spec, Inference())
    for parameter in G.net.parameters():  # as built, the picture is nearly gray whatever is done
        parameter.data *= 3
    path.parent.mkdir(parents=True, exist_ok=True)
    G.save(path)
    return load(path)


@pytest.fixture(name="G")
def default_generator(tmp_path: Path) -> Generator:
    return make_generator(tmp_path / "generator.safetensors")


def translate(tmp_path: Path, *argv: object, out: str = "out") -> int:
    return main([str(tmp_path / "generator.safetensors"), *map(str, argv), "--out", str(tmp_path / out)])


def opened(path: Path) -> Tensor:
    """A picture file as uint8 `[C,H,W]`."""
    values = np.array(Image.open(path))
    return torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)


def expected(G: Generator, x: Tensor) -> Tensor:
    return to_uint8(G(to_float(x[None])))[0]


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "result.json").read_text())


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# The picture


def test_the_output_is_what_the_generator_makes_of_the_input(tmp_path: Path, G: Generator) -> None:
    source = tmp_path / "in"
    for seed, name in enumerate(("a.png", "deep/er/b.bmp", "c.tif")):
        save(source / name, noise(seed))
    assert translate(tmp_path, source) == 0
    for name in ("a.png", "deep/er/b.bmp", "c.tif"):
        x = opened(source / name)
        stem = Path(name).with_suffix(".png")
        assert torch.equal(opened(tmp_path / "out/input" / stem), x)
        assert torch.equal(opened(tmp_path / "out/output" / stem), expected(G, x))
    assert not (tmp_path / "out/target").exists()


def test_any_size_is_padded_cropped_back_and_told(
    tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"a": (30, 20), "b": (30, 20), "c": (48, 16), "d": (1, 1)}
    for name, (width, height) in sizes.items():
        save(tmp_path / f"in/{name}.png", noise(0, width, height))
    assert translate(tmp_path, tmp_path / "in") == 0
    for name, size in sizes.items():
        assert Image.open(tmp_path / f"out/output/{name}.png").size == size
        x = opened(tmp_path / f"in/{name}.png")
        assert torch.equal(opened(tmp_path / f"out/output/{name}.png"), expected(G, x))
    said = capsys.readouterr().out
    assert (
        "2 pictures of 30x20 padded to 32x32 and cropped back; 1 picture of 48x16 as it is; "
        "1 picture of 1x1 padded to 16x16 and cropped back\n"
    ) in said
    assert "trained on 16x16" in said


def test_size_resizes_as_validation_does(tmp_path: Path, G: Generator) -> None:
    x = opened(save(tmp_path / "in/a.png", noise(0, 50, 40)))
    assert translate(tmp_path, tmp_path / "in/a.png", "--size", 32) == 0
    seen = Augment(32, 32, mirror=False, train=False)({"x": x}, 0)["x"]
    assert torch.equal(opened(tmp_path / "out/input/a.png"), seen)
    assert torch.equal(opened(tmp_path / "out/output/a.png"), expected(G, seen))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_what_the_generator_takes(tmp_path: Path, mode: str, channels: int) -> None:
    make_generator(tmp_path / "generator.safetensors", (channels, 3))
    image = noise(0, mode=mode)
    path = save(tmp_path / "in" / ("a.tif" if mode == "CMYK" else "a.png"), image)
    assert translate(tmp_path, path) == 0
    if mode in ("LA", "RGBA"):  # white shows through
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    seen = np.array(image.convert("L" if channels == 1 else "RGB")).reshape(32, 32, channels)
    assert np.array_equal(opened(tmp_path / "out/input/a.png").permute(1, 2, 0).numpy(), seen)


@pytest.mark.parametrize(("extension", "options"), [("jpg", {}), ("webp", {"lossless": True})])
def test_a_turned_photograph_is_put_upright(
    tmp_path: Path, G: Generator, extension: str, options: dict[str, Any]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = noise(0, 40, 24).resize((80, 48))
    path = save(tmp_path / f"in/a.{extension}", stored, exif=exif, **options)
    assert translate(tmp_path, path) == 0
    turned = np.rot90(np.array(Image.open(path)), -1)
    assert np.array_equal(opened(tmp_path / "out/input/a.png").permute(1, 2, 0).numpy(), turned)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_are_cut_and_measured(
    tmp_path: Path, G: Generator, side: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [opened(save(tmp_path / f"in/{n}.png", noise(n, 64, 32))) for n in range(3)]
    assert translate(tmp_path, tmp_path / "in", "--pairs", side) == 0
    values = []
    for number, pair in enumerate(pairs):
        halves = pair[..., :32], pair[..., 32:]
        x, y = halves if side == "left" else halves[::-1]
        assert torch.equal(opened(tmp_path / f"out/input/{number}.png"), x)
        assert torch.equal(opened(tmp_path / f"out/target/{number}.png"), y)
        values.append(float((G(to_float(x[None])) - to_float(y[None])).abs().mean() / 2))
    assert [row["l1"] for row in result(tmp_path / "out")["translated"]] == pytest.approx(values, abs=1e-6)
    assert f"mean L1 {np.mean(values):.4f} in units of [0, 1] over 3" in capsys.readouterr().out


def test_a_pair_of_odd_width_is_named(tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "in/a.png", noise(0, 33, 16))
    assert translate(tmp_path, path, "--pairs", "left") == 2
    assert f"{path}: is 33 pixels wide" in capsys.readouterr().err


# Shard sets


@pytest.fixture
def shard_set(tmp_path: Path) -> Path:
    for number in range(5):
        save(tmp_path / f"pairs/sub/{number}.png", noise(number, 64, 32))
    argv = ["pairs", tmp_path / "pairs", tmp_path / "set", "--input", "right", "--samples", 2, "--processes", 1]
    assert pack.main([*map(str, argv)]) == 0
    return tmp_path / "set"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_shard_set_knows_its_sides(tmp_path: Path, G: Generator, shard_set: Path, reverse: bool) -> None:
    assert translate(tmp_path, shard_set, *["--reverse"][: int(reverse)]) == 0
    shards = ShardSet(str(shard_set), reverse)
    read = [shards.read(s, n) for s, count in enumerate(shards.counts) for n in range(count)]
    samples = [(key, (members["x"], members["y"])) for key, members in read]
    for key, (x, y) in samples:
        assert torch.equal(opened(tmp_path / f"out/input/{key}.png"), x)
        assert torch.equal(opened(tmp_path / f"out/target/{key}.png"), y)
        assert torch.equal(opened(tmp_path / f"out/output/{key}.png"), expected(G, x))
    assert sorted(key for key, _ in samples) == [f"sub/{n}" for n in range(5)]
    batch = {name: torch.stack([sides[at] for _, sides in samples]) for at, name in enumerate("xy")}
    whole = evaluate({"G": G}, [{**batch, "keys": samples, "position": 0}], len(samples), METRICS)["G"]
    told = [row["l1"] for row in result(tmp_path / "out")["translated"]]
    assert np.mean(told) == pytest.approx(whole["L1"], abs=1e-6)


def test_shards_are_taken_as_validation_took_them(tmp_path: Path, G: Generator, shard_set: Path) -> None:
    """Resized to the crop where training resized; and the direction is the one that was trained."""
    spec = dataclasses.replace(G.spec, crop=24, resized=True, reverse=True)
    Generator(G.net, spec, G.inference).save(tmp_path / "generator.safetensors")
    assert translate(tmp_path, shard_set) == 0
    key, members = ShardSet(str(shard_set), reverse=True).read(0, 0)
    assert opened(next((tmp_path / "out/input/sub").glob("*.png"))).shape == (3, 24, 24)
    again = Augment(24, 24, mirror=False, train=False)({"x": members["x"]}, 0)["x"]
    assert torch.equal(opened(tmp_path / f"out/input/{key}.png"), again)


def test_a_damaged_sample_is_named_and_the_others_done(
    tmp_path: Path, G: Generator, shard_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = shard_set / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    assert translate(tmp_path, shard_set) == 2
    assert "shard-000000.tar at byte 0" in capsys.readouterr().err
    assert len(result(tmp_path / "out")["translated"]) == 4


def test_a_shard_set_of_other_channels_is_refused(
    tmp_path: Path, shard_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_generator(tmp_path / "generator.safetensors", (1, 3))
    assert translate(tmp_path, shard_set) == 2
    assert "3 -> 3 channels, the generator makes 1 -> 3" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# What a picture depends on


def test_a_picture_does_not_depend_on_its_companions(tmp_path: Path, G: Generator) -> None:
    sizes = [(64, 32), (60, 30), (64, 32), (32, 16), (58, 31), (64, 32), (30, 16)] * 2
    for number, (width, height) in enumerate(sizes):
        save(tmp_path / f"in/{number:02d}.png", noise(number, width, height))
    source = tmp_path / "in"
    assert translate(tmp_path, source, "--pairs", "left", "--batch", 1, out="one") == 0
    assert translate(tmp_path, source, "--pairs", "left", "--batch", 8, out="eight") == 0
    assert translate(tmp_path, source / "04.png", "--pairs", "left", out="alone") == 0
    one, eight = (result(tmp_path / name)["translated"] for name in ("one", "eight"))
    assert [row["name"] for row in one] == [row["name"] for row in eight]
    assert [row["l1"] for row in one] == pytest.approx([row["l1"] for row in eight], abs=1e-5)
    pictures = [(f"one/output/{n:02d}.png", f"eight/output/{n:02d}.png") for n in range(len(sizes))]
    for a, b in [*pictures, ("alone/output/04.png", "eight/output/04.png")]:
        difference = opened(tmp_path / a).int() - opened(tmp_path / b).int()
        assert difference.abs().max() <= 1  # 1e-5 may cross a rounding


def test_dropout_and_seed_override_what_is_stored(tmp_path: Path, G: Generator) -> None:
    x = opened(save(tmp_path / "in/a.png", noise(0)))
    asked = {
        "stored": [],
        "seed": ["--seed", 7],
        "off": ["--dropout", "off"],
        "again": ["--dropout", "on", "--seed", 0],
    }
    for name, options in asked.items():
        assert translate(tmp_path, tmp_path / "in/a.png", *options, out=name) == 0
    made = {name: opened(tmp_path / name / "output/a.png") for name in asked}
    assert torch.equal(made["stored"], made["again"])
    assert not torch.equal(made["stored"], made["seed"])
    G.inference = Inference(dropout=True, seed=7)
    assert torch.equal(made["seed"], expected(G, x))
    G.inference = Inference(dropout=False)
    assert torch.equal(made["off"], expected(G, x))


def test_running_statistics_must_have_been_measured(
    tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    x = opened(save(tmp_path / "in/a.png", noise(0)))
    asked = (tmp_path / "in/a.png", "--statistics", "running")
    assert translate(tmp_path, *asked) == 2
    error = capsys.readouterr().err
    assert "none were measured" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    G.calibrate([{"x": torch.stack([x, x.flip(-1)])}])
    G.save(tmp_path / "generator.safetensors")
    assert translate(tmp_path, *asked) == 0
    G.inference = Inference(statistics="running")
    assert torch.equal(opened(tmp_path / "out/output/a.png"), expected(G, x))


# What goes wrong


def test_what_cannot_be_read_is_named_and_the_others_are_done(
    tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    for name in ("a", "z"):
        save(source / f"{name}.png", noise(0))
    (source / "empty.jpg").touch()
    (source / "text.png").write_text("hello")
    (source / "notes.txt").write_text("passed over")
    file = io.BytesIO()
    noise(1).save(file, "PNG")
    (source / "short.png").write_bytes(file.getvalue()[:200])
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(source / "deep.png")
    assert translate(tmp_path, source) == 2
    out, error = capsys.readouterr()
    assert f"{source}/empty.jpg: empty file" in error
    assert f"{source}/text.png: not an image" in error
    assert f"{source}/short.png: cannot be decoded" in error
    assert f"{source}/deep.png: more than 8 bits" in error
    assert error.count("\n") == 4
    assert "passed over 1 file that is no picture by name" in out
    assert "translated 2 of 6" in out
    assert files(tmp_path / "out/output") == {"a.png", "z.png"}
    assert len(result(tmp_path / "out")["bad"]) == 4


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ("no such input", "no such file or folder"),
        ("an empty folder", "no pictures here"),
        ("no checkpoint", "no such file; give a run folder"),
        ("an unfinished run", "no such file; give a run folder"),
        ("half a checkpoint", "no usable generator"),
        ("--reverse of pictures", "--pairs left or right"),
        ("out is a file", "is a file; give a folder"),
        ("out in the input", "give a folder outside"),
        ("four channels", "pictures have 1 or 3"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    tmp_path: Path, mistake: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    G = make_generator(tmp_path / "G/generator.safetensors", (4, 3) if mistake == "four channels" else (3, 3))
    checkpoint, source, out = tmp_path / "G", tmp_path / "in", tmp_path / "out"
    save(source / "a.png", noise(0))
    options = ["--reverse"] if mistake == "--reverse of pictures" else []
    if mistake == "no such input":
        source = tmp_path / "nowhere"
    if mistake == "an empty folder":
        source = tmp_path / "empty"
        source.mkdir()
    if mistake == "no checkpoint":
        checkpoint = tmp_path / "nothing"
    if mistake == "an unfinished run":
        checkpoint = tmp_path / "run"
        (checkpoint / "checkpoints").mkdir(parents=True)
        shutil.copytree(tmp_path / "G", checkpoint / "checkpoints/.000000000100.tmp")
    if mistake == "half a checkpoint":
        file = checkpoint / "generator.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
    if mistake == "out is a file":
        out.write_text("precious")
    if mistake == "out in the input":
        out = source / "out"
    before = files(tmp_path)
    assert G is not None
    assert main([*map(str, [checkpoint, source, *options, "--out", out])]) == 2
    said, error = capsys.readouterr()
    assert said == ""
    assert error.startswith("p2p-translate: ")
    assert says in error
    assert error.count("\n") == 1
    assert files(tmp_path) == before
    assert not out.is_dir()


def test_as_a_process_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "runs/bags"
    make_generator(run / "checkpoints/000000000200/generator.safetensors")
    save(tmp_path / "in/a.png", noise(0))
    command = [sys.executable, "-m", "launch.translate", run, tmp_path / "in/a.png", "--out", tmp_path / "out"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"translated 1 of 1: {tmp_path}/out/index.html\n")
    assert "bags after 200 images" in (tmp_path / "out/index.html").read_text()


def test_a_misspelt_option_is_one_line(tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        translate(tmp_path, tmp_path, "--dropout", "maybe")
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


# The folder


def test_pictures_of_one_name_are_kept_apart(tmp_path: Path, G: Generator) -> None:
    for seed, name in enumerate(("a.bmp", "a.png", "A.tif", "a.png.png", "sub/a.png", ".hidden.png")):
        save(tmp_path / "in" / name, noise(seed))
    save(tmp_path / "more/a.png/b.png", noise(9))
    save(tmp_path / "more/a.bmp", noise(10))
    assert translate(tmp_path, tmp_path / "in", tmp_path / "more", tmp_path / "in/a.bmp") == 0
    rows = result(tmp_path / "out")["translated"]
    assert len(rows) == 8
    assert len({row["name"].casefold() for row in rows}) == 8
    assert {"in/A", "in/sub/a", "more/a", "a"} <= {row["name"] for row in rows}
    for row in rows:
        assert torch.equal(opened(tmp_path / f"out/input/{row['name']}.png"), opened(Path(row["source"])))


def test_no_name_leads_out_of_the_folder(tmp_path: Path, G: Generator) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    file = io.BytesIO()
    noise(0, 32, 16).save(file, "PNG")
    keys = ["../../evil", "/evil", "x/../../../evil", "x/y", "c:\\evil", "x/" + "n" * 90]
    info = write_shard(folder / "shard-000000.tar", [(key, {"ab.png": file.getvalue()}) for key in keys])
    index = Index("left", 0, (3, 3), (16, 16), (16, 16), (info,))
    (folder / "index.json").write_text(index.dumps())
    assert read_index(folder).samples == len(keys)
    before = files(tmp_path)
    assert translate(tmp_path, folder, out="deep/out") == 0
    written = files(tmp_path) - before
    assert all(name.startswith("deep/out/") for name in written)
    assert len(files(tmp_path / "deep/out/output")) == len(keys)
    assert not Path("/evil.png").exists()


def test_names_are_safe_and_never_given_twice() -> None:
    names = Names()
    asked = ["../x", "x", "/x", "X", "x.png", "x.png/y", "", "..", "a\0b\n", "\udcff", "é" * 300, "é" * 300, *HOSTILE]
    given = [names.take(name) for name in asked * 2]
    assert len({name.casefold() for name in given}) == len(given)
    for name in given:
        parts = name.split("/")
        assert not {"", ".", ".."}.intersection(parts)
        assert all(len(part.encode()) < 240 and part.isprintable() for part in parts)
        assert not any(part.lower().endswith(".png") for part in parts[:-1])


def test_only_a_result_is_replaced_and_only_when_asked(
    tmp_path: Path, G: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = (save(tmp_path / f"in/{name}.png", noise(0)) for name in "ab")
    out = tmp_path / "out"
    out.mkdir()
    assert translate(tmp_path, a, b) == 0  # an empty folder is as good as none
    before = {name: (out / name).read_bytes() for name in files(out)}
    assert translate(tmp_path, b) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {name: (out / name).read_bytes() for name in files(out)} == before
    assert translate(tmp_path, b, "--overwrite") == 0
    assert files(out / "output") == {"b.png"}
    (out / "thesis.txt").write_text("precious")
    assert translate(tmp_path, a, "--overwrite") == 2
    assert "holds other files (thesis.txt)" in capsys.readouterr().err
    assert (out / "thesis.txt").read_text() == "precious"
    assert files(out / "output") == {"b.png"}
    save(tmp_path / "mine/output/holiday.png", noise(0))  # looks like a result, but is none
    assert translate(tmp_path, a, "--overwrite", out="mine") == 2
    assert files(tmp_path / "mine") == {"output/holiday.png"}


def test_an_interrupted_result_can_be_written_anew(tmp_path: Path, G: Generator) -> None:
    path = save(tmp_path / "in/a.png", noise(0))
    (tmp_path / "out/output").mkdir(parents=True)
    (tmp_path / "out/result.json").write_text('{"complete": false}')
    (tmp_path / "out/output/.a.png.tmp").write_text("half")
    assert translate(tmp_path, path) == 2
    assert translate(tmp_path, path, "--overwrite") == 0
    assert files(tmp_path / "out") == {"index.html", "result.json", "input/a.png", "output/a.png"}
    assert result(tmp_path / "out")["complete"] is True


# The page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH: the page cannot be opened")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        opened_browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened_browser
        opened_browser.close()


COUNT = 3000


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 3,000 rows; every second has a target, and the first have the worst names."""
    folder = tmp_path_factory.mktemp("page # ? %41 ä")
    file = io.BytesIO()
    noise(0, 8, 8).save(file, "PNG")
    names, rows = Names(), []
    for number in range(COUNT):
        name = names.take(HOSTILE[number] if number < len(HOSTILE) else f"bag {number}")
        links = [f"{kind}/{name}.png" for kind in ("input", "output", "target")]
        links = links if number % 2 else [*links[:2], ""]
        for link in filter(None, links):
            (folder / link).parent.mkdir(parents=True, exist_ok=True)
            (folder / link).write_bytes(file.getvalue())
        rows.append(gallery.Row(name, links, (8, 8), number / COUNT if number % 2 else None))
    return gallery.write(folder, rows, HOSTILE[0], {HOSTILE[1]: HOSTILE[2], "pictures": "3,000"})


@pytest.fixture
def page(browser: Any, page_file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page opened from file://; whatever the browser complains of, or asks a network for, fails the test."""
    context = browser.new_context(**getattr(request, "param", {"viewport": {"width": 1200, "height": 800}}))
    opened_page = context.new_page()
    complaints: list[str] = []
    opened_page.on("console", lambda message: complaints.append(message.text))
    opened_page.on("pageerror", lambda error: complaints.append(str(error)))
    opened_page.on("requestfailed", lambda asked: complaints.append(asked.url))
    opened_page.on("request", lambda asked: complaints.append(asked.url) if not asked.url.startswith("file:") else None)
    opened_page.goto(page_file.as_uri())
    yield opened_page
    hacked = opened_page.evaluate("window.hacked")
    context.close()
    assert hacked is None
    assert complaints == []


def shown(page: Any) -> list[str]:
    return list(page.locator("#rows h2 span").all_text_contents())


def load_all(page: Any) -> list[int]:
    """The width of every picture in the document, once it is loaded; 0 for one that is not."""
    script = """Promise.all([...document.images].map(async image => {
        image.loading = "eager"; await image.decode().catch(() => {}); return image.naturalWidth; }))"""
    return list(page.evaluate(script))


def test_the_page_pages_and_its_pictures_load(page: Any) -> None:
    nodes = "document.querySelectorAll('*').length"
    assert page.evaluate(nodes) < 40 * gallery.ROWS
    assert load_all(page) == [8] * page.locator("#rows img").count()
    seen = shown(page)
    for first in range(gallery.ROWS, 3 * gallery.ROWS, gallery.ROWS):
        page.click("#above button:last-child")
        assert page.inner_text("#below span") == f"{first + 1}–{first + gallery.ROWS} of 3,000"
        seen += shown(page)
    assert len(set(seen)) == 3 * gallery.ROWS
    assert page.evaluate(nodes) < 40 * gallery.ROWS
    assert load_all(page) == [8] * page.locator("#rows img").count()
    assert page.is_disabled("#above button:first-child") is False


def test_hostile_names_are_text_and_their_pictures_load(page: Any) -> None:
    assert page.title() == HOSTILE[0]
    assert page.inner_text("h1") == HOSTILE[0]
    assert page.inner_text("dt >> nth=0") == HOSTILE[1]
    for name in map(Names().take, HOSTILE):
        page.fill("#search", name.upper())
        assert shown(page) == [name]
        assert set(load_all(page)) == {8}
        page.click("#rows img >> nth=1")
        assert page.inner_text("#zoom h2 > span") == name
        assert set(load_all(page)) == {8}
        page.keyboard.press("Escape")
    page.fill("#search", "nobody")
    assert page.inner_text("#rows") == "no such name"


def test_the_page_sorts(page: Any) -> None:
    page.select_option("#sort", "worst")
    assert shown(page)[:2] == ["bag 2999", "bag 2997"]
    page.select_option("#sort", "best")
    assert shown(page)[4:6] == ["bag 9", "bag 11"]
    page.select_option("#sort", "name")
    page.fill("#search", "bag 10")
    assert shown(page)[:3] == ["bag 10", "bag 100", "bag 101"]
    page.select_option("#sort", "worst")
    assert shown(page)[:2] == ["bag 1099", "bag 1097"]


def test_a_row_is_enlarged_and_the_keyboard_leads_on(page: Any) -> None:
    page.fill("#search", "bag")
    order = shown(page)
    page.click("#rows article:nth-child(1) img")
    for name in order[1:3]:
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#zoom h2 > span") == name
    for name in order[1::-1]:
        page.click("#zoom [data-go='-1']")
        assert page.inner_text("#zoom h2 > span") == name
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#zoom h2 > span") == order[1]
    for _ in range(gallery.ROWS):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.locator("#above span", has_text=f"{gallery.ROWS + 1}–").wait_for()  # the page that one has come to
    assert page.is_hidden("#zoom")


PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.mark.parametrize("page", [PHONE], indirect=True)
def test_the_page_fits_a_phone(page: Any) -> None:
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0
    page.tap("#rows img >> nth=0")
    assert page.is_visible("#zoom")
    boxes = [image.bounding_box() for image in page.locator("#zoom img").all()]
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= 740 for box in boxes)
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 360 for box in boxes)


@pytest.mark.parametrize("page", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_the_first_page_is_there(page: Any) -> None:
    assert shown(page)[: len(HOSTILE)] == [*map(Names().take, HOSTILE)]
    assert page.locator("#rows article").count() == gallery.ROWS
    assert page.is_hidden("#bar")
    assert "the first 48 of 3000" in page.inner_text("noscript")


def test_columns_and_orders_that_nobody_needs_are_left_out(tmp_path: Path) -> None:
    rows = [gallery.Row("a", ["input/a.png", "output/a.png", ""], (8, 8))]
    text = gallery.write(tmp_path, rows, "title", {}).read_text()
    assert "output" in text
    assert "target" not in text.replace("event.target", "")
    assert "worst first" not in text
    assert gallery.write(tmp_path, [], "none", {}).read_text().startswith("<!doctype html>")
