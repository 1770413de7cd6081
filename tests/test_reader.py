"""Pairs stay pairs, jitter is PIL's, and nothing that is wrong with a shard passes unseen."""

import json
import re
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image

from p2p.data import format as form
from p2p.data.augment import Augment
from p2p.data.decode import CPU
from p2p.data.epochs import Sequential
from p2p.data.order import Order
from p2p.data.reader import Holes, Stream
from p2p.data.rows import read_rows
from p2p.data.shardset import ShardSet
from p2p.data.tars import crc
from shards import pack
from tests.conftest import pair


def never(line):
    raise AssertionError(f"nothing to report was expected, got: {line}")


def stream(shards, *, batch=4, rank=0, world=1, threads=2, allowed=0, report=never, augment=None, order=None):
    order = order or Order(shards.counts, seed=3, lanes=batch, block=2, window=2)
    augment = augment or Augment(36, 32, mirror=True, seed=3)
    return Stream(shards, order, augment, Holes(allowed, report), batch, rank, world, seed=3, threads=threads)


def read(the_stream, start, stop):
    return list(the_stream.batches(start, stop))


@pytest.fixture
def damaged(shard_folder, tmp_path):
    """A copy that a test may damage, and a function that flips one bit at a byte of its first shard."""
    folder = shutil.copytree(shard_folder / "train", tmp_path / "copy")

    def flip(byte, name="shard-000000.tar"):
        data = bytearray((folder / name).read_bytes())
        data[byte] ^= 1
        (folder / name).write_bytes(data)

    return folder, flip


def test_pixels_are_those_of_the_source(shard_folder):
    shards = ShardSet(str(shard_folder / "train"))
    seen = set()
    for shard, count in enumerate(shards.counts):
        for sample in range(count):
            key, members = shards.read(shard, sample)
            x, y = members["x"], members["y"]
            both = np.asarray(pair(int(key)))
            assert np.array_equal(x.permute(1, 2, 0), both[:, 32:])
            assert np.array_equal(y.permute(1, 2, 0), both[:, :32])
            seen.add(key)
    assert len(seen) == 24


def test_reverse_swaps_the_sides(shard_folder):
    x, y = ShardSet(str(shard_folder / "train")).read(0, 0)[1].values()
    x2, y2 = (ShardSet(str(shard_folder / "train"), reverse=True).read(0, 0)[1][side] for side in "xy")
    assert torch.equal(x, y2)
    assert torch.equal(y, x2)


def test_a_plain_webdataset_reader_sees_the_same_samples(shard_folder):
    shards = ShardSet(str(shard_folder / "train"))
    paths = [str(shard_folder / "train" / s.name) for s in shards.index.shards]
    plain = [sample["__key__"] for sample in wds.WebDataset(paths, shardshuffle=False)]
    ours = [key for batch in read(stream(shards, order=Sequential(shards.counts)), 0, 24) for key in batch["keys"]]
    assert ours == plain


@pytest.mark.parametrize(("world", "threads"), [(1, 1), (1, 4), (2, 2), (3, 1), (4, 2)])
def test_batches_do_not_depend_on_ranks_threads_or_the_start(shard_folder, world, threads):
    shards = ShardSet(str(shard_folder / "train"))
    reference = read(stream(shards), 0, 60)
    ranks = [read(stream(shards, rank=r, world=world, threads=threads), 20, 60) for r in range(world)]
    for step, whole in enumerate(reference[5:]):
        parts = [rank[step] for rank in ranks]
        assert [key for part in parts for key in part["keys"]] == whole["keys"]
        for name in ("x", "y", "z"):
            assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    first_epoch = [key for batch in reference[:6] for key in batch["keys"]]
    assert len(set(first_epoch)) == 24


def test_a_short_last_step_is_delivered(shard_folder):
    shards = ShardSet(str(shard_folder / "val"))
    batches = read(stream(shards, order=Sequential(shards.counts)), 0, 6)
    assert [len(b["keys"]) for b in batches] == [4, 2]


def coordinates(side):
    """A picture whose pixels say where they are: red the column, green the row."""
    across = torch.arange(side).expand(side, side)
    return torch.stack([across, across.T, torch.zeros_like(across)]).to(torch.uint8)


def test_both_sides_are_cut_and_mirrored_alike():
    augment = Augment(0, 24, mirror=True, seed=5)
    x = coordinates(32)
    corners, flips = set(), 0
    for position in range(400):
        a, b = augment({"x": x, "y": 255 - x}, position).values()
        assert torch.equal(a, 255 - b)
        row = a[0, 0].int()
        flips += int(row[0] > row[-1])
        assert row.diff().abs().eq(1).all()
        corners.add((int(row.min()), int(a[1, 0, 0])))
    assert {c for corner in corners for c in corner} == set(range(9))  # 32 - 24 + 1 places on each axis
    assert len(corners) > 75  # of 81
    assert 140 < flips < 260  # 6 sigma around 200


def test_jitter_is_pils_bicubic():
    both = pair(3, side=64)
    x = torch.from_numpy(np.asarray(both.crop((0, 0, 64, 64)))).permute(2, 0, 1)
    for side in (72, 40):
        resized = Augment(side, side, mirror=False)({"x": x}, 0)["x"]
        by_pil = np.asarray(both.crop((0, 0, 64, 64)).resize((side, side), Image.Resampling.BICUBIC), np.int16)
        error = np.abs(resized.permute(1, 2, 0).numpy().astype(np.int16) - by_pil)
        assert error.max() <= 2  # both round between the two passes
        assert error.mean() < 0.1


def test_jitter_and_mirror_can_be_left_out():
    x = coordinates(32)
    a, b = Augment(32, 32, mirror=False)({"x": x, "y": x}, 7).values()
    assert torch.equal(a, x)
    assert torch.equal(b, x)


def test_validation_is_not_random():
    x = coordinates(32)
    augment = Augment(0, 24, mirror=True, train=False)
    a = augment({"x": x}, 1)["x"]
    assert torch.equal(a, augment({"x": x}, 2)["x"])
    assert torch.equal(a, x[:, 4:28, 4:28])


def test_a_picture_smaller_than_the_crop_is_refused():
    with pytest.raises(ValueError, match="32x32 pixels, smaller than the crop of 40"):
        Augment(0, 40, mirror=False)({"x": coordinates(32)}, 0)


@pytest.mark.parametrize("where", ["first header", "picture", "padding", "last sample"])
def test_one_flipped_bit_is_a_hole_with_its_place(damaged, where):
    folder, flip = damaged
    rows = read_rows(folder, form.read_index(folder).shards[0])
    last = int(rows[-1]["offset"])
    flip({"first header": 3, "picture": 700, "padding": int(rows[1]["offset"]) - 1, "last sample": last + 600}[where])
    lines = []
    shards = ShardSet(str(folder))
    healthy = read(stream(ShardSet(str(folder)), allowed=24, report=lines.append), 0, 24)
    assert len(lines) == 1
    assert f"shard-000000.tar at byte {last if where == 'last sample' else 0}:" in lines[0]
    # Every other sample keeps its position; the hole's gets a healthy one.
    broken = (0, len(rows) - 1) if where == "last sample" else (0, 0)
    _, shard, sample = Order(shards.counts, seed=3, lanes=4, block=2, window=2).at(np.arange(24))
    keys = [key for batch in healthy for key in batch["keys"]]
    for position, place in enumerate(zip(shard.tolist(), sample.tolist(), strict=True)):
        if place != broken:
            assert keys[position] == shards.read(*place)[0]
    assert len(keys) == 24
    # The stand-in is the same whoever reads.
    again = read(stream(shards, allowed=24, report=lines.append, threads=1), 0, 24)
    assert [key for batch in again for key in batch["keys"]] == keys


def test_more_holes_than_allowed_stop_with_the_list(damaged):
    folder, flip = damaged
    rows = read_rows(folder, form.read_index(folder).shards[0])
    for row in rows[:3]:
        flip(int(row["offset"]) + 600)
    with pytest.raises(ValueError, match=r"3 unreadable samples, data.max_bad allows 2: shard-000000.tar at byte"):
        read(stream(ShardSet(str(folder)), allowed=2, report=lambda line: None), 0, 24)


def rename(folder, name):
    """Have the index call the first shard something else."""
    text = (folder / "index.json").read_text()
    (folder / "index.json").write_text(text.replace("shard-000000.tar", name))


def cut(path):
    path.write_bytes(path.read_bytes()[:-512])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda d: cut(d / "shard-000001.tar"), r"shard-000001.tar: has \d+ bytes, index.json says"),
        (lambda d: (d / "shard-000002.tar").unlink(), "shard-000002.tar: missing"),
        (lambda d: (d / "index.json").unlink(), "no index.json here"),
        (lambda d: (d / "index.json").write_text("{"), "index.json: not a usable index"),
        (lambda d: (d / "index.json").write_text("[]"), "index.json: not a usable index"),
        (lambda d: rename(d, "../shard-000000.tar"), "names '../shard-000000.tar', which is no file of this folder"),
        (lambda d: rename(d, "/etc/passwd"), "names '/etc/passwd', which is no file of this folder"),
        (lambda d: cut(d / "shard-000000.npy"), "shard-000000.npy: does not hold the 7 rows"),
        (
            lambda d: shutil.copy(d / "shard-000003.npy", d / "shard-000000.npy"),
            "shard-000000.npy: does not hold the 7 rows",
        ),
        (lambda d: np.save(d / "shard-000000.npy", np.asarray([{}])), "shard-000000.npy: does not hold the 7 rows"),
    ],
)
def test_a_set_that_does_not_fit_its_index_is_refused_before_reading(damaged, damage, says):
    folder, _ = damaged
    damage(folder)
    with pytest.raises(ValueError, match=says) as error:
        ShardSet(str(folder))
    assert "\n" not in str(error.value)


def edit(folder, change):
    """Change the index as a stranger might."""
    tree = json.loads((folder / "index.json").read_text())
    change(tree)
    (folder / "index.json").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("samples"), "samples: field required"),
        (lambda t: t.pop("channels"), "channels: field required"),
        (lambda t: t.update(layout="upside"), "layout: input should be 'left', 'right' or 'two'"),
        (lambda t: t.update(channels=[7, 7]), "says (7, 7) channels; a side has 1 or 3"),
        (lambda t: t.update(channels=[3]), "channels.1: field required"),
        (lambda t: t["shards"][0].update(samples="7"), "shards.0.samples: input should be a valid integer"),
        (lambda t: t["shards"].append(t["shards"][0]), "names a shard twice"),
        (lambda t: t.update(samples=25), "says 25 samples, its shards hold 24"),
        (lambda t: t.update(clasces=t.pop("classes")), "clasces: unexpected keyword argument"),
    ],
)
def test_an_index_that_lies_is_refused_in_one_line(damaged, change, says):
    folder, _ = damaged
    edit(folder, change)
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        ShardSet(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["twice", "gap", "wrap", "garbage", "archive"])
def test_rows_that_do_not_follow_each_other_are_refused(damaged, damage):
    folder, _ = damaged
    path = folder / "shard-000000.npy"
    rows = np.load(path)
    if damage == "twice":
        rows[1] = rows[0]
    elif damage == "gap":
        rows["offset"][3:] += 512
    elif damage == "wrap":
        rows["offset"][-1] = 2**64 - 100
    np.save(path, rows)
    if damage == "garbage":
        path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': [[[")
    elif damage == "archive":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ValueError, match=r"shard-000000.npy: (its rows do not follow|cannot be read|does not hold)"):
        ShardSet(str(folder))


@pytest.mark.parametrize("size", [b"-0000001000", b"00077777777", b"0000000zz00"])
def test_a_tar_header_that_lies_about_its_size_is_refused(damaged, size):
    """With a checksum that fits: as a hostile packer would write it."""
    folder, _ = damaged
    path, rows_path = folder / "shard-000000.tar", folder / "shard-000000.npy"
    data, rows = bytearray(path.read_bytes()), np.load(rows_path)
    data[124:135] = size
    rows["crc"][0] = crc(bytes(data[: int(rows["size"][0])]))
    path.write_bytes(data)
    np.save(rows_path, rows)
    with pytest.raises(ValueError, match=r"shard-000000\.tar at byte 0"):
        ShardSet(str(folder)).read(0, 0)


def test_a_second_epoch_is_cut_otherwise(shard_folder):
    """Jitter, mirror and noise are of the position, not of the sample: the same sample comes again in another way."""
    shards = ShardSet(str(shard_folder / "train"))
    pixels, noises = {}, {}
    for batch in read(stream(shards), 0, 24 * 4):
        for key, y, z in zip(batch["keys"], batch["y"], batch["z"], strict=True):
            pixels.setdefault(key, []).append(y)
            noises.setdefault(key, []).append(int(z))
    assert all(len(set(zs)) == 4 for zs in noises.values())
    assert sum(not torch.equal(y[0], y[1]) for y in pixels.values()) >= 22  # of 24; 1 in 50 cuts is the same
    reseeded = read(stream(shards, augment=Augment(36, 32, mirror=True, seed=4)), 0, 24)
    assert any(not torch.equal(b["y"][0], pixels[b["keys"][0]][0]) for b in reseeded)


def test_the_mirror_does_not_know_the_corner():
    augment, x = Augment(0, 24, mirror=True, seed=5), coordinates(32)
    both = [augment({"x": x}, p)["x"] for p in range(600)]
    flipped = np.array([int(a[0, 0, 0]) > int(a[0, 0, -1]) for a in both])
    top = np.array([int(a[1, 0, 0]) for a in both])
    left = np.array([int(a[0, 0].min()) for a in both])
    for corner in (top, left):
        assert abs(np.corrcoef(flipped, corner)[0, 1]) < 0.25  # 6 sigma of 600 draws
    assert abs(np.corrcoef(top, left)[0, 1]) < 0.25


def test_stand_ins_differ_from_place_to_place(damaged):
    folder, flip = damaged
    rows = read_rows(folder, form.read_index(folder).shards[0])
    for row in rows:
        flip(int(row["offset"]) + 600)
    lines = []
    keys = [k for b in read(stream(ShardSet(str(folder)), allowed=24, report=lines.append), 0, 24) for k in b["keys"]]
    assert len(lines) == 7
    assert len(set(keys)) == 17
    assert max(keys.count(k) for k in keys) <= 4  # not one stand-in for all seven


def test_a_shard_of_another_set_is_noticed(damaged, shard_folder):
    """Same size, other bytes: the checksum of each sample decides."""
    folder, _ = damaged
    other = bytearray((folder / "shard-000000.tar").read_bytes())
    other[1000:1100] = bytes(100)
    (folder / "shard-000000.tar").write_bytes(other)
    with pytest.raises(ValueError, match="are not those that were packed"):
        read(stream(ShardSet(str(folder))), 0, 24)


class Counted(ShardSet):
    """A set that counts what is read."""

    count = 0

    def read(self, shard, sample, device=CPU):
        self.count += 1
        return super().read(shard, sample, device)


@pytest.mark.parametrize(("samples", "most"), [(0, 10), (12, 18), (1000, 120)])
def test_the_look_ahead_is_bounded_in_bytes(shard_folder, samples, most):
    """One step, or as many samples as fit; two more for the threads, and the step that is over the bound."""
    shards = Counted(str(shard_folder / "train"))
    source = stream(shards)
    source.ahead = samples * 6 * 32 * 32
    batches = source.batches(0, 120)
    next(batches)
    before = -1
    while before != shards.count:  # until the threads rest
        before = shards.count
        time.sleep(0.2)
    assert min(samples, 4) < shards.count <= most
    assert len([4, *(len(batch["keys"]) for batch in batches)]) == 30


def test_any_ranks_and_readers_deliver_three_epochs_alike(shard_folder):
    """Uneven shards, 9 steps of 8: every sample three times, and no rank has more steps than another."""
    shards = ShardSet(str(shard_folder / "train"))
    order = Order(shards.counts, seed=3, lanes=8, block=2, window=1)
    whole = read(stream(shards, batch=8, order=order, threads=1), 0, 72)
    assert set(Counter(key for batch in whole for key in batch["keys"]).values()) == {3}
    for world, threads in [(1, 8), (2, 1), (3, 2), (4, 3), (5, 5), (8, 2)]:
        ranks = [
            read(stream(shards, batch=8, order=order, rank=r, world=world, threads=threads), 0, 72)
            for r in range(world)
        ]
        assert {len(rank) for rank in ranks} == {9}
        for step, batch in enumerate(whole):
            assert [key for rank in ranks for key in rank[step]["keys"]] == batch["keys"]
            for name in ("x", "y", "z"):
                assert torch.equal(torch.cat([rank[step][name] for rank in ranks]), batch[name])


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """21 side-by-side JPEG pairs of 32 pixels, three of them gray."""
    root = tmp_path_factory.mktemp("jpegs")
    (root / "pairs").mkdir()
    for i in range(21):
        picture = pair(i).convert("L") if i % 7 == 0 else pair(i)
        picture.save(root / "pairs" / f"{i:04d}.jpg", quality=90)
    assert pack.main(["pairs", str(root / "pairs"), str(root / "set"), "--input", "left"]) == 0
    return root / "set"


@pytest.mark.parametrize("reverse", [False, True])
def test_pictures_that_are_decoded_together_are_the_same(jpegs, tmp_path, reverse):
    """To their places in the batch, by another decoder; with a hole, too, whose part goes the long way."""
    folder = shutil.copytree(jpegs, tmp_path / "copy")
    shards, plain = ShardSet(str(folder), reverse), Augment(32, 32, mirror=True, seed=3)
    together = stream(shards, augment=plain)
    assert together._together(next(together.places(0, 4))) is not None
    apart = stream(shards, augment=plain)
    apart._whole = False
    data = bytearray((folder / "shard-000000.tar").read_bytes())
    for hole in (False, True):
        if hole:
            data[600] ^= 1
            (folder / "shard-000000.tar").write_bytes(data)
        for one in (together, apart):
            one.holes = Holes(hole, [].append)
        for a, b in zip(read(together, 0, 44), read(apart, 0, 44), strict=True):
            assert a["keys"] == b["keys"]
            for name in ("x", "y", "z"):
                assert torch.equal(a[name], b[name])
