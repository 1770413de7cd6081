"""What pixels mean: planes of labels, boundaries of instances, and that all members of a sample stay aligned."""

import numpy as np
import pytest
import torch
from PIL import Image

from p2p.data.augment import Augment, nearest
from p2p.data.shardset import ShardSet
from p2p.data.views import View, boundaries, one_hot, painted
from tests.conftest import CLASSES


def literal_boundaries(instances):
    """1 where a pixel differs from one of its four neighbours."""
    edge = np.zeros(instances.shape, bool)
    H, W = instances.shape
    for i in range(H):
        for j in range(W):
            near = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
            edge[i, j] = any(0 <= a < H and 0 <= b < W and instances[a, b] != instances[i, j] for a, b in near)
    return edge


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (9, 13)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_boundaries_are_where_a_neighbour_differs(size, dtype):
    numbers = torch.Generator().manual_seed(sum(size))
    ids = torch.randint(0, 3, (2, 1, *size), generator=numbers) * (40_000 if dtype != torch.uint8 else 1)
    for own, edge in zip(ids, boundaries(ids.to(dtype)), strict=True):
        assert np.array_equal(edge[0].numpy(), literal_boundaries(own[0].numpy()))


def test_ids_that_differ_in_high_bits_only_are_other_instances():
    ids = torch.tensor([[[[32_768, 98_304, 98_304]]]], dtype=torch.int32)  # equal in 16 bits
    assert boundaries(ids).tolist() == [[[[True, True, False]]]]


def test_one_plane_a_class():
    labels = torch.randint(0, 5, (2, 1, 6, 7), dtype=torch.uint8)
    planes = one_hot(labels, 5)
    assert planes.dtype == torch.float32
    assert planes.is_contiguous(memory_format=torch.channels_last)
    for c in range(5):
        assert torch.equal(planes[:, c], (labels[:, 0] == c).float())


def test_a_view_puts_boundaries_after_the_classes_and_leaves_the_rest():
    batch = {
        "x": torch.randint(0, 4, (2, 1, 8, 8), dtype=torch.uint8),
        "y": torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8),
        "instances": torch.randint(0, 3, (2, 1, 8, 8), dtype=torch.int32),
        "keys": ["a", "b"],
    }
    view = View(4, boundaries=True)
    seen = view.encode(batch)
    assert seen["x"].shape == (2, view.channels(1, 3)[0], 8, 8)
    assert torch.equal(seen["x"][:, :4], one_hot(batch["x"], 4))
    assert torch.equal(seen["x"][:, 4:], boundaries(batch["instances"]).float())
    assert torch.equal(seen["y"], batch["y"].float() / 127.5 - 1)
    assert torch.equal(seen["instances"], batch["instances"])
    assert seen["keys"] == ["a", "b"]
    rgb = View(0, boundaries=True).encode({**batch, "x": batch["y"]})["x"]
    assert torch.equal(rgb[:, :3], seen["y"])
    assert rgb.shape[1] == View(0, boundaries=True).channels(3, 3)[0] == 4


def test_every_class_has_a_colour_of_its_own():
    colours = painted(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    assert colours.shape == (1, 3, 16, 16)
    assert len({tuple(c) for c in colours[0].flatten(1).T.tolist()}) == 256
    assert colours[0, :, 0, 0].tolist() == [0, 0, 0]
    assert colours[0, :, 0, 1].tolist() == [128, 0, 0]  # PASCAL VOC's first


@pytest.mark.parametrize("size", [(10, 10), (7, 23), (64, 40), (33, 21)])
def test_nearest_is_pils(size):
    ids = np.arange(33 * 21, dtype=np.int32).reshape(33, 21) * 50
    by_pil = np.asarray(Image.fromarray(ids, "I").resize(size[::-1], Image.Resampling.NEAREST))
    assert np.array_equal(nearest(torch.from_numpy(ids), size), by_pil)


def sample(side=40):
    """Every member tells where a pixel came from: the photo in its colours, the label and the instance by number."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    place = torch.stack([rows, columns, torch.zeros_like(rows)]).to(torch.uint8)
    return {"x": rows[None].to(torch.uint8), "y": place, "instances": (rows * 1000 + columns)[None].to(torch.int32)}


def test_flips_and_crops_keep_everything_aligned():
    augment = Augment(0, (24, 16), mirror=True, seed=3, masks=frozenset(["x", "instances"]))
    flips = set()
    for position in range(60):
        cut = augment(sample(), position)
        rows, columns, _ = cut["y"].int()
        assert torch.equal(cut["x"][0].int(), rows)
        assert torch.equal(cut["instances"][0], rows * 1000 + columns)
        flips.add(bool(columns[0, 0] > columns[0, -1]))
        assert cut["y"].shape == (3, 24, 16)
    assert flips == {True, False}


@pytest.mark.parametrize("load", [(60, 50), (20, 24), 64])
def test_masks_are_never_interpolated(load):
    augment = Augment(load, (16, 16), mirror=True, seed=1, masks=frozenset(["x", "instances"]))
    before = sample()
    ids, labels = set(before["instances"].flatten().tolist()), set(before["x"].flatten().tolist())
    for position in range(8):
        cut = augment(before, position)
        assert set(cut["instances"].flatten().tolist()) <= ids
        assert set(cut["x"].flatten().tolist()) <= labels
        # The photo is smooth, so it says to a pixel where each label was.
        assert (cut["y"][0].int() - cut["x"][0].int()).abs().max() <= 2


def test_members_of_several_sizes_are_refused():
    odd = sample() | {"instances": torch.zeros(1, 20, 40, dtype=torch.int32)}
    with pytest.raises(ValueError, match=r"several sizes in pixels \(x 40x40, y 40x40, instances 20x40\)"):
        Augment(0, 16, mirror=False)(odd, 0)


def test_shards_give_back_labels_and_instances(label_folder):
    shards = ShardSet(str(label_folder / "train"))
    assert (shards.channels, shards.index.classes, shards.index.instances) == ((1, 3), CLASSES, True)
    for shard, count in enumerate(shards.counts):
        for number in range(count):
            key, members = shards.read(shard, number)
            generator = np.random.default_rng(int(key))  # as tests.conftest.write_maps
            label = generator.integers(0, CLASSES, (4, 4)).repeat(8, 0).repeat(8, 1)
            other = generator.integers(0, 3, (2, 2)).repeat(16, 0).repeat(16, 1)
            assert np.array_equal(members["x"][0], label)
            assert members["instances"].dtype == torch.int32
            assert np.array_equal(members["instances"][0], label * 11_000 + other)
    assert members["instances"].max() > 32_768
