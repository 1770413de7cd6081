"""Training sets of several sources, in several stores, of several generations: always the same samples in one order."""

import json
import shutil
import tarfile
from io import BytesIO

import fsspec
import pytest
import torch
from PIL import Image

from launch.train import main as train
from p2p import config as conf
from p2p.build import build_experiment
from p2p.data.format import ShardInfo, index_name, read_index
from p2p.data.rows import rows_name
from p2p.data.samples import Samples
from p2p.data.shardset import ShardSet
from shards import index as index_tars
from shards import pack, verify
from tests.conftest import small_tree, write_pairs
from tests.servers import s3_server, web_server


def made(tree, generations=()):
    return build_experiment(conf.from_tree(tree), 1, torch.device("cpu"), generations)


def batches(the_plan, start, stop):
    """What a stream delivers, to compare."""
    found = []
    for batch in the_plan.stream(0, 1, print).batches(start, stop):
        found.append((batch["keys"], batch["x"].sum().item(), batch["y"].sum().item()))
    return found


@pytest.fixture
def tree(shard_folder, tmp_path):
    """Settings whose cache is the test's own."""
    settings = small_tree(shard_folder)
    settings["data"] |= {"cache": str(tmp_path / "cache")}
    return settings


def test_a_web_server_gives_the_same_batches_as_a_folder(tree, shard_folder):
    local = batches(made(tree), 8, 60)
    with web_server(shard_folder) as web:
        tree["data"] |= {"train": f"{web.url}/train", "val": f"{web.url}/val"}
        assert batches(made(tree), 8, 60) == local
        assert batches(made(tree), 0, 60)[2:] == local  # out of the cache
        for info in read_index(shard_folder / "train").shards:
            transfers = [part for part in web.ranges[f"/train/{info.name}"] if part != "bytes=0-0"]  # its size
            assert len(transfers) == 1


def test_a_command_gives_whole_shards(tree, shard_folder):
    tree["data"] |= {"block": 0, "lanes": 4}
    local = batches(made(tree), 0, 48)
    tree["data"]["train"] = f"pipe:cat {shard_folder}/train/{{}}"
    assert batches(made(tree), 0, 48) == local


def test_what_cannot_be_read_in_parts_is_refused_with_blocks(tree, shard_folder):
    tree["data"]["train"] = f"pipe:cat {shard_folder}/train/{{}}"
    with pytest.raises(ValueError, match=r"cannot be read in parts; use data\.block=0"):
        made(tree)
    with web_server(shard_folder, ranges=False) as web:
        tree["data"]["train"] = f"{web.url}/train"
        with pytest.raises(ValueError, match=r"cannot be read in parts; use data\.block=0"):
            made(tree)
        tree["data"] |= {"block": 0, "lanes": 4}
        remote = batches(made(tree), 0, 24)
    tree["data"]["train"] = str(shard_folder / "train")
    assert batches(made(tree), 0, 24) == remote


def test_the_index_may_lie_elsewhere(tree, shard_folder, tmp_path):
    """As of other people's tars on a web server, whose index is here."""
    local = batches(made(tree), 0, 24)
    here = tmp_path / "index"
    here.mkdir()
    for file in (shard_folder / "train").iterdir():
        if file.suffix != ".tar":
            shutil.copy(file, here)
    with web_server(shard_folder / "train") as web:
        tree["data"]["train"] = [{"at": str(here), "shards": web.url}]
        assert batches(made(tree), 0, 24) == local
        index = json.loads((here / "index.json").read_text()) | {"root": web.url}
        (here / "index.json").write_text(json.dumps(index))
        tree["data"]["train"] = str(here)
        assert batches(made(tree), 0, 24) == local


def test_a_file_does_not_say_what_to_run(tree, shard_folder, tmp_path):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "set")
    index = json.loads((folder / "index.json").read_text()) | {"root": "pipe:touch owned; cat {}"}
    (folder / "index.json").write_text(json.dumps(index))
    tree["data"]["train"] = str(folder)
    with pytest.raises(ValueError, match="has the root 'pipe:"):
        made(tree)


def add_generation(folder, other):
    """Add the shards of another set, as the packer does: new names, a new index, nothing old is touched."""
    old, new, shards = read_index(folder), read_index(other), []
    for number, info in enumerate(new.shards, start=len(old.shards)):
        name = f"shard-{number:06d}.tar"
        shutil.copy(other / info.name, folder / name)
        shutil.copy(other / rows_name(info.name), folder / rows_name(name))
        shards.append(ShardInfo(name, info.samples, info.bytes, info.sha256))
    tree = json.loads((folder / "index.json").read_text())
    tree["shards"] += [json.loads(json.dumps({n: getattr(one, n) for n in one.__slots__})) for one in shards]
    tree["samples"] += new.samples
    (folder / index_name(1)).write_text(json.dumps(tree))


def test_a_run_goes_on_with_the_generation_it_began_with(tree, shard_folder, tmp_path):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "set")
    tree["data"]["train"] = str(folder)
    (tmp_path / "config.yaml").write_text(json.dumps(tree))
    argv = ["--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run")]
    assert train([*argv, "--set", "schedule.decay=0"]) == 0
    add_generation(folder, shard_folder / "val")
    assert Samples(str(folder)).counts == [7, 7, 7, 3, 6]
    assert Samples(str(folder / "index.json")).counts == [7, 7, 7, 3]
    assert train(argv) == 0  # goes on to the end, in the old order
    (newest,) = (path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.endswith("48"))
    assert json.loads((newest / "state.json").read_text())["order"]["samples"] == 24
    assert made(tree).order.size == 30  # a new run takes everything


def test_sources_of_another_kind_are_refused(tree, shard_folder, label_folder):
    tree["data"]["train"] = [{"at": str(shard_folder / "train")}, {"at": str(label_folder / "train")}]
    with pytest.raises(ValueError, match=r"set/train: channels \(1, 3\), .*set/train has \(3, 3\)"):
        made(tree)


def test_training_ends_where_the_store_is_down_and_goes_on(tree, shard_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("p2p.data.remote.TRIES", 2)
    monkeypatch.setattr("p2p.data.remote.FIRST_WAIT_S", 0.01)
    with web_server(shard_folder) as web:
        tree["data"] |= {"train": f"{web.url}/train", "val": "", "ahead": 0, "block": 2, "lanes": 4}
        (tmp_path / "config.yaml").write_text(json.dumps(tree))
        argv = ["--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run")]
        web.fail("/train/shard-000002.tar", *[503] * 50)
        assert train(argv) == 75
        said = capsys.readouterr().err
        assert f"{web.url}/train/shard-000002.tar: HTTP 503 Service Unavailable (after 2 tries)" in said
        web.faults.clear()
        assert train(argv) == 0


@pytest.fixture
def bucket(monkeypatch):
    """A real S3 server, known to this process and to those it starts."""
    with s3_server("bags") as known:
        monkeypatch.setitem(fsspec.config.conf, "s3", known)
        monkeypatch.setenv("FSSPEC_S3", json.dumps(known))
        yield "s3://bags"


def test_packed_into_a_bucket_added_to_verified_and_trained_on(tree, shard_folder, tmp_path, bucket):
    pairs = write_pairs(tmp_path / "pairs", 24)
    argv = ["pairs", str(pairs), f"{bucket}/set", "--input", "right", "--samples", "7"]
    assert pack.main(argv) == 0
    tree["data"] |= {"train": f"{bucket}/set", "val": ""}
    local = made(tree | {"data": tree["data"] | {"train": str(shard_folder / "train")}})
    assert batches(made(tree), 0, 30) == batches(local, 0, 30)
    assert pack.main(argv) == 0  # again: nothing to do
    more = write_pairs(tmp_path / "more", 5, first=50)
    assert pack.main(["pairs", str(more), *argv[2:], "--append"]) == 0
    assert Samples(f"{bucket}/set").counts == [7, 7, 7, 3, 5]
    assert verify.main([f"{bucket}/set", "--images", "--json", str(tmp_path / "found.json")]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["samples"] == 29


def test_a_gpu_that_is_not_there_decodes_nothing(tree):
    tree["data"]["decode"] = "gpu"
    with pytest.raises(ValueError, match=r"data\.decode: gpu needs a GPU; use cpu"):
        made(tree)


def test_a_server_that_answers_everything_is_told_from_one_that_has_more(tree, shard_folder, tmp_path):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "set")
    (folder / index_name(1)).write_text("<html>not found, but with status 200</html>")
    with web_server(folder) as web:
        with pytest.raises(
            ValueError, match=rf"index-1.json: is no index; .* name the first one: {web.url}/index.json"
        ):
            Samples(web.url)
        assert len(Samples(f"{web.url}/index.json").counts) == 4
        web.fail("/index-1.json", 403)  # as buckets do whose files may not be listed
        assert len(Samples(web.url).counts) == 4


def test_validation_reads_whole_shards_where_it_must(tree, shard_folder, tmp_path):
    tree["data"] |= {"train": f"pipe:cat {shard_folder}/train/{{}}", "val": f"pipe:cat {shard_folder}/val/{{}}"}
    tree["data"] |= {"block": 0, "lanes": 4}
    (tmp_path / "config.yaml").write_text(json.dumps(tree))
    assert train(["--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run")]) == 0


def test_a_cache_too_small_for_whole_shards_is_refused(tree, shard_folder):
    tree["data"] |= {"train": f"pipe:cat {shard_folder}/train/{{}}", "block": 0, "lanes": 4, "cache_bytes": "100K"}
    with pytest.raises(
        ValueError, match=r"data\.cache_bytes: 102400 are too few for the whole shards that 4 lanes read"
    ):
        made(tree)


@pytest.mark.parametrize("root", ["reference::https://host/refs.json", "github://a:b@c/", "memory://a"])
def test_an_index_names_only_stores_that_run_nothing(shard_folder, tmp_path, root):
    folder = shutil.copytree(shard_folder / "train", tmp_path / "set")
    index = json.loads((folder / "index.json").read_text()) | {"root": root}
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="has the root"):
        Samples(str(folder))


def test_members_are_those_that_the_index_names(tmp_path):
    """A stranger's samples have an `a.png` too, which is none of ours."""
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, level in [("1.edges.png", 10), ("1.a.png", 99), ("1.jpg.png", 200), ("1.b.png", 0)]:
            file = BytesIO()
            Image.new("L", (8, 8), level).save(file, "PNG")
            info = tarfile.TarInfo(name)
            info.size = file.tell()
            file.seek(0)
            tar.addfile(info, file)
    argv = [str(tmp_path), "--input", "edges.png", "--target", "jpg.png", "--processes", "1"]
    assert index_tars.main(argv) == 0
    _, members = ShardSet(str(tmp_path)).read(0, 0)
    assert (int(members["x"].max()), int(members["y"].max())) == (10, 200)
