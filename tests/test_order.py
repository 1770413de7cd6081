"""The global order: a permutation every epoch, the same batches for any number of ranks, from any position."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2p.data import keyed
from p2p.data.epochs import Sequential, WholeShards
from p2p.data.mix import Mix
from p2p.data.mix import whole as in_whole_numbers
from p2p.data.order import Order
from p2p.data.steps import rank_slice, steps

counts = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(sum)
orders = st.builds(
    Order,
    counts,
    seed=st.integers(0, 2**63),
    lanes=st.sampled_from([1, 2, 3, 6, 12]),
    block=st.integers(1, 8),
    window=st.integers(1, 3),
)


whole = st.builds(WholeShards, counts, seed=st.integers(0, 2**63), lanes=st.sampled_from([1, 2, 3, 6, 12, 50]))
sequences = st.one_of(orders, whole, st.builds(Sequential, counts))


def samples(order, positions):
    _, shard, sample = order.at(np.asarray(positions))
    return list(zip(shard.tolist(), sample.tolist(), strict=True))


@settings(max_examples=200, deadline=None)
@given(sequences, st.integers(0, 50))
def test_every_epoch_is_a_permutation(order, epoch):
    positions = np.arange(epoch * order.size, (epoch + 1) * order.size)
    assert set(order.at(positions)[0].tolist()) == {epoch}
    everything = [(shard, i) for shard, count in enumerate(order.counts) for i in range(count)]
    assert sorted(samples(order, positions)) == everything


@settings(max_examples=100, deadline=None)
@given(sequences, st.integers(1, 16), st.integers(0, 1000), st.data())
def test_every_number_of_ranks_makes_the_same_global_batch(order, batch, step, data):
    world = data.draw(st.integers(1, batch))
    first = step * batch
    whole = samples(order, range(first, first + batch))
    by_ranks = [s for rank in range(world) for s in samples(order, rank_slice(first, batch, rank, world))]
    assert by_ranks == whole
    assert all(len(rank_slice(first, batch, rank, world)) >= batch // world for rank in range(world))


@settings(max_examples=50, deadline=None)
@given(orders, st.integers(0, 500))
def test_a_position_does_not_depend_on_what_is_asked_with_it(order, position):
    assert samples(order, [position]) == [samples(order, range(position + 1))[-1]]


def test_epochs_and_seeds_differ():
    def epoch(seed, e):
        order = Order([50, 50], seed)
        return samples(order, range(e * 100, e * 100 + 100))

    assert epoch(0, 0) == epoch(0, 0)
    assert epoch(0, 0) != epoch(0, 1)
    assert epoch(0, 0) != epoch(1, 0)


@pytest.mark.parametrize("size", [5, 20, 37, 100])
def test_a_small_set_is_mixed_evenly(size):
    """Each sample stands at each place about equally often over 4000 epochs, within 6 sigma."""
    order = Order([2, size - 2], seed=9)
    _, shard, sample = order.at(np.arange(size * 4000))
    number = np.where(shard == 0, sample, 2 + sample).reshape(4000, size)
    table = np.stack([np.bincount(number[:, place], minlength=size) for place in range(size)])
    assert abs(table - 4000 / size).max() < 6 * np.sqrt(4000 / size)


def test_a_large_set_mixes_shards_and_reads_blocks():
    order = Order([1000] * 1000, seed=1, lanes=1024, block=16, window=2)
    _, shard, _ = order.at(np.arange(6400))
    assert len(set(shard.tolist())) > 800
    # A lane emits its 32 samples, two blocks of 16, over 32 rounds of all lanes.
    _, shard, sample = order.at(np.arange(32) * 1024 + 5)
    blocks = {(s, i // 16) for s, i in zip(shard.tolist(), sample.tolist(), strict=True)}
    assert len(blocks) == 2


def first_seen_blocks(order, epoch, block):
    """Blocks in the order in which an epoch first touches them."""
    positions = range(epoch * order.size, (epoch + 1) * order.size)
    return list(dict.fromkeys((shard, i // block) for shard, i in samples(order, positions)))


def test_blocks_are_shuffled_anew_in_every_epoch():
    order = Order([100] * 20, seed=4, lanes=4, block=4, window=2)
    assert order.size > 4 * 4 * 2  # more than a round: lanes, not one permutation of all
    first, second = (first_seen_blocks(order, epoch, 4) for epoch in (0, 1))
    assert sorted(first) == sorted(second)
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10  # of 500


def test_each_lane_of_the_tail_has_an_order_of_its_own():
    """27 full rounds of 4 lanes x 8 samples, then 4 runs of 7."""
    order = Order([27 * 32 + 28], seed=6, lanes=4, block=4, window=2)
    places = order._in_tail(np.arange(28), keyed.key(order.seed, 0, np.zeros(28, np.int64))) - 27 * 32
    runs = [tuple(places[lane::4] - 7 * lane) for lane in range(4)]
    assert all(sorted(run) == list(range(7)) for run in runs)
    assert len(set(runs)) == 4


def test_ten_billion_samples_have_no_table():
    order = Order(range(9_000, 11_000), seed=2)  # 2,000 shards; nothing grows with the samples
    big = Order([10_000_000] * 1000, seed=2)
    for o in (order, big):
        positions = np.asarray([0, 1, o.size - 1, o.size, 7 * o.size + 12345])
        _, shard, sample = o.at(positions)
        assert all(0 <= i < o.counts[s] for s, i in zip(shard.tolist(), sample.tolist(), strict=True))


def test_sequential_is_the_order_of_the_shards():
    assert samples(Sequential([2, 0, 3]), range(6)) == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2), (0, 0)]


@pytest.mark.parametrize(
    ("wrong", "says"), [({"counts": [0, 0]}, "no samples"), ({"counts": [3], "block": 0}, "block 0")]
)
def test_what_has_no_order_is_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Order(**wrong)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.integers(0, 2**64 - 1))
def test_permute_is_one_to_one(size, key):
    out = keyed.permute(np.arange(size), np.asarray(size), np.asarray(key, np.uint64))
    assert sorted(out.tolist()) == list(range(size))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_one_number_is_that_of_the_array(seed, position):
    assert keyed.uniform(seed, position) == float(keyed.key(seed, position) >> np.uint64(11)) / (1 << 53)


def test_keys_are_fixed_for_ever():
    """A change here would change the order of every run that is to be resumed."""
    assert int(keyed.key(1, 2, 3)) == 3592312200069816221
    assert Order([30, 20], seed=7).at(np.arange(6))[2].tolist() == [26, 4, 12, 10, 9, 5]


@settings(max_examples=200, deadline=None)
@given(sequences, st.integers(0, 50), st.floats(0, 1))
def test_when_a_sample_comes_is_the_inverse(order, epoch, part):
    first = epoch * order.size
    _, shard, sample = order.at(np.arange(first, first + order.size))
    assert order.when(shard, sample, first).tolist() == list(range(first, first + order.size))
    now = first + int(part * (order.size - 1))
    coming = order.when(shard, sample, now)
    assert coming.min() == now  # whatever stands there
    assert coming.max() < now + 2 * order.size
    found = order.at(coming)
    assert found[1].tolist() == shard.tolist()
    assert found[2].tolist() == sample.tolist()


def test_whole_shards_are_opened_by_few_ranks():
    """What the order for pipes is for: a rank reads the shards of its lanes, each from one end to the other."""
    order, batch, world = WholeShards([100] * 200, seed=3, lanes=64), 64, 8
    opened = []
    for rank in range(world):
        places = [p for step in steps(order, 0, order.size // batch * batch, batch, rank, world) for p in step]
        opened.append({p.shard for p in places})
    assert sum(map(len, opened)) <= 200 + 64  # each once, and once more where a lane ends inside it
    first = [p.shard for step in steps(order, 0, 64 * 100, 64) for p in step]
    assert len(set(first)) > 64  # and a batch has many


@settings(max_examples=50, deadline=None)
@given(st.lists(orders, min_size=1, max_size=3), st.data())
def test_a_mix_holds_every_set_whole_and_by_weight(parts, data):
    weights = data.draw(st.lists(st.integers(1, 7), min_size=len(parts), max_size=len(parts)))
    mix = Mix(parts, weights, seed=data.draw(st.integers(0, 99)))
    cycles = 2 * max(order.size for order in parts)
    positions = np.arange(cycles * sum(weights))
    source, own = mix.own(positions)
    for s, weight in enumerate(weights):
        assert sorted(own[source == s].tolist()) == list(range(cycles * weight))
        assert (np.bincount(positions[source == s] // sum(weights), minlength=cycles) == weight).all()
    epoch, shard, sample = mix.at(positions)
    for s, order in enumerate(parts):
        inside = (source == s) & (own < order.size)
        found = sorted(zip((shard - mix.first_shards[s])[inside].tolist(), sample[inside].tolist(), strict=True))
        assert found == [(i, n) for i, count in enumerate(order.counts) for n in range(count)]
        assert (epoch[inside] == 0).all()
        assert (np.diff(own[source == s]) == 1).all()  # each set in its own order


def test_a_mix_knows_when_to_a_cycle():
    mix = Mix([Order([50, 31], 1, 4, 2, 2), Order([9], 2, 4, 2, 2)], [3, 1], 5)
    positions = np.arange(100, 180)
    _, shard, sample = mix.at(positions)
    coming = mix.when(shard, sample, 100)
    first_time = {}
    for position, place in zip(positions.tolist(), zip(shard.tolist(), sample.tolist(), strict=True), strict=True):
        first_time.setdefault(place, position)
    for place, when in zip(zip(shard.tolist(), sample.tolist(), strict=True), coming.tolist(), strict=True):
        assert 0 <= first_time[place] - when < 4


def test_weights_become_the_least_whole_numbers():
    assert in_whole_numbers([0.3, 0.7]) == [3, 7]
    assert in_whole_numbers([2, 4, 2.0]) == [1, 2, 1]
    assert in_whole_numbers([138_567, 49_825]) == [92, 33]  # to a thousandth: a cycle of 125, not of 188,392
    for bad in ([1, 0], [1, -2], [1e-4, 1], [float("inf"), 1]):
        with pytest.raises(ValueError, match="weights"):
            in_whole_numbers(bad)


def test_three_epochs_on_up_to_4096_ranks():
    """Uneven shards; every rank has as many steps as the others, all have each sample three times."""
    order, batch = Order([997, 3, 1024, 0, 511, 70, 2_500], seed=1, lanes=8192, block=4, window=2), 4096
    stop = 3 * order.size
    whole = [p for step in steps(order, 0, stop, batch) for p in step]
    assert [p.position for p in whole] == list(range(stop))
    assert set(Counter((p.shard, p.sample) for p in whole).values()) == {3}
    for world in (1, 2, 3, 4, 5, 8, 48, 1000, 4096):
        ranks = [rank_slice(0, batch, rank, world) for rank in range(world)]
        assert [position for rank in ranks for position in rank] == list(range(batch))
        assert {len(rank) for rank in ranks} <= {batch // world, -(-batch // world)}
        some = sorted({0, world // 2, world - 1})
        for rank in some:
            mine = list(steps(order, batch, stop, batch, rank, world))
            assert len(mine) == -(-stop // batch) - 1
            for number, step in enumerate(mine, start=1):
                here = rank_slice(number * batch, min(batch, stop - number * batch), rank, world)
                assert step == whole[here.start : here.stop]
