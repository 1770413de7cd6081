"""A sample of `python -m tests.faults`: of every kind of fault a few trials, and proof that the judgement can fail."""

import threading
from random import Random

import pytest
import torch

from p2p.data.steps import steps as reader_steps
from tests.faultbench import DisplacedError, UnseenError, bench, judge
from tests.faultfiles import header_bit
from tests.faultkinds import KINDS, Kind
from tests.faults import BAD, GOOD, main, plan, play

SEED = 1
TRIALS = 2
"""Of each kind; of those that start processes, or wait, one."""
SLOW = "disk full", "two fill one cache", "two fill one cache, kill -9", "stalled", "command stalls"


@pytest.fixture(scope="module")
def bench_(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with bench(tmp_path_factory.mktemp("faults")) as made:
        yield made
    torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_passes_unseen(bench_, kind):
    for number in range(1 if kind in SLOW else TRIALS):
        result = play(bench_, SEED, kind, number)
        assert result.outcome in GOOD, result


def test_a_sound_set_is_not_suspected(bench_):
    for way in ("folder", "web", "whole", "plain", "pipe"):
        with bench_.copy(Random(way)) as copy:
            assert judge(bench_.trial(copy, way, Random(SEED)), {"healed"}) == "healed"


def test_the_judgement_sees_what_nobody_says(bench_, monkeypatch):
    """A reader that compares no checksums."""
    with bench_.copy(Random(SEED)) as copy:
        header_bit(copy, Random(SEED))
        monkeypatch.setattr("p2p.data.samples.crc", lambda data: AnyNumber())
        with pytest.raises(UnseenError, match="damaged"):
            judge(bench_.trial(copy, "folder", Random(SEED)), {"holes"})


class AnyNumber:
    """Equal to every checksum."""

    def __eq__(self, other):
        return True

    __hash__ = None


def swapped(*args):
    """Steps whose first and last samples have changed places."""
    for places in reader_steps(*args):
        if len(places) > 1:
            first, last = places[0], places[-1]
            places[0], places[-1] = last._replace(position=first.position), first._replace(position=last.position)
        yield places


def test_the_judgement_sees_a_displaced_sample(bench_, monkeypatch):
    with bench_.copy(Random(SEED)) as copy:
        monkeypatch.setattr("p2p.data.reader.steps", swapped)
        with pytest.raises(DisplacedError, match="is healthy"):
            judge(bench_.trial(copy, "folder", Random(SEED)), {"healed"})


def test_a_hang_is_a_result(bench_, monkeypatch):
    """Where the store never answers, and would be waited for."""
    monkeypatch.setattr("tests.faults.HUNG_S", 1)
    monkeypatch.setitem(KINDS, "hangs", Kind(lambda bench, dice: threading.Event().wait()))
    result = play(bench_, SEED, "hangs", 0)
    assert (result.outcome, result.reason) == ("hung", "no end after 1 s")


def test_every_kind_has_its_share():
    trials = plan(10_000)
    assert len(trials) >= 10_000
    assert {kind for kind, _ in trials} == set(KINDS)
    assert len(set(trials)) == len(trials)


def test_the_command_counts_and_repeats(capsys):
    assert main(["--only", "data bit", "3", "5", "--processes", "1"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["trials", *GOOD, *BAD]
    assert lines[-1].split()[:2] == ["total", "2"]
