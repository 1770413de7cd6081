"""The orders that `tests.bench.shuffle` compares are what they are said to be, and ours mixes as a full permutation."""

import numpy as np
import pytest

from tests.bench import shuffle
from tests.bench.shuffle import Sorted

DATA = Sorted(shards=160, samples=200, batch=64)
SCHEMES = {
    "permutation": lambda data: shuffle.permutation(data, 3),
    "ours": lambda data: shuffle.ours(data, 3, lanes=128, block=16, window=2),
    "whole": lambda data: shuffle.whole(data, 3, lanes=64),
    "webdataset": lambda data: shuffle.webdataset(data, 3, ranks=2, workers=4, buffer=200),
    "py1e": lambda data: shuffle.py1e(data, 3, window=4000, nodes=1),
    "py1e of 8": lambda data: shuffle.py1e(data, 3, window=4000, nodes=8),
}


@pytest.fixture(scope="module")
def found():
    """Of each scheme its order and how it mixes."""
    orders = {name: make(DATA) for name, make in SCHEMES.items()}
    return {name: (order, shuffle.measure(DATA, order)) for name, order in orders.items()}


@pytest.mark.parametrize("name", SCHEMES)
def test_an_epoch_holds_every_sample_once(found, name):
    order, _ = found[name]
    missing = DATA.size - len(order)  # WebDataset drops what does not fill a batch of every worker
    assert missing <= (DATA.batch // 2 * 8 if name == "webdataset" else 0)
    assert len(np.unique(order)) == len(order)
    assert order.min() >= 0
    assert order.max() < DATA.size


def test_what_is_measured_is_known_for_a_permutation(found):
    _, mixing = found["permutation"]
    shards, batch = DATA.shards, DATA.batch
    assert mixing.per_batch == pytest.approx(shards * (1 - (1 - 1 / shards) ** batch), rel=0.02)
    assert mixing.per_batches == shards
    assert mixing.deviation == pytest.approx(1, abs=0.05)


def test_what_is_measured_is_known_for_no_shuffle():
    mixing = shuffle.measure(DATA, np.arange(DATA.size))
    assert mixing.per_batch < 2
    assert mixing.per_batches == pytest.approx(DATA.batch * shuffle.BATCHES / DATA.samples, rel=0.05)
    assert mixing.deviation == pytest.approx(np.sqrt(DATA.batch), rel=0.01)  # a batch is of one class


def test_ours_mixes_as_a_full_permutation(found):
    (_, full), (_, mixing) = found["permutation"], found["ours"]
    assert mixing.per_batch == pytest.approx(full.per_batch, rel=0.02)
    assert mixing.per_batches > 0.95 * full.per_batches
    assert mixing.deviation < 1.05


def test_ours_mixes_a_thousand_shards_as_the_page_says():
    data = Sorted()
    mixing = shuffle.measure(data, shuffle.ours(data, 1, lanes=1024, block=16, window=2))
    assert mixing.per_batch == pytest.approx(62, abs=0.3)
    assert mixing.per_batches == pytest.approx(887, abs=15)
    assert mixing.deviation == pytest.approx(1, abs=0.02)


def test_a_buffer_does_not_mix_sorted_shards(found):
    assert found["webdataset"][1].deviation > 2 * found["ours"][1].deviation


def test_a_worker_of_webdataset_sees_its_own_shards_and_no_others():
    """What its buffers deliver in an epoch: shards rank + world * (worker + workers * i)."""
    seen = shuffle._worker(DATA, 3, (1, 2), (2, 4), buffer=200) // DATA.samples
    assert set(seen.tolist()) == {s for s in range(DATA.shards) if s % 2 == 1 and s // 2 % 4 == 2}


def test_py1e_moves_no_sample_beyond_its_window():
    """Ranks of noisy positions: nobody who was a window behind can overtake."""
    data = Sorted(shards=40, samples=200, batch=64)
    still = shuffle.py1e(data, 5, window=0, nodes=1)
    assert len(set((still.reshape(40, 200) // 200).ravel()[::200].tolist())) == 40
    assert (np.diff(still.reshape(40, 200)) == 1).all()  # without noise: whole shards, one after the other
    before = np.argsort(still)
    moved = np.abs(before[shuffle.py1e(data, 5, window=500, nodes=1)] - np.arange(data.size))
    assert 100 < moved.max() <= 500


def test_canonical_nodes_share_every_batch_alike(found):
    order, _ = found["py1e of 8"]
    still = shuffle.py1e(DATA, 3, window=0, nodes=8)
    node = np.argsort(still) % 8  # the span of each sample
    per_batch = node[order.reshape(-1, DATA.batch)]
    assert (np.sort(per_batch, axis=1) == np.repeat(np.arange(8), DATA.batch // 8)).all()
