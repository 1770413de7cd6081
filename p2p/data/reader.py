"""From shards to batches: the ordered source, read and decoded by threads, delivered in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch import Tensor

from p2p.data import keyed
from p2p.data.ahead import Ahead
from p2p.data.augment import Augment, sides
from p2p.data.dataset import DataSet
from p2p.data.decode import CPU
from p2p.data.direct import Extent
from p2p.data.epochs import SampleOrder
from p2p.data.shardset import Members
from p2p.data.steps import Place, steps

NOISE, STAND_IN = 11, 12
"""What a key is for; see `p2p.data.augment` for those of the transform."""
GRAIN = 4
"""Items that a thread takes at once; handing over costs as much as a tenth of a decode."""
FETCHED = 2**28
"""Encoded bytes that are fetched before they are asked for, at most."""

Batch = dict[str, Any]
"""`x`, `y`: uint8 `[n,C,H,W]`; where the shards have them, `instances`: int32 `[n,1,H,W]`; `z`: int64 `[n]`, keys of
G's noise; `keys`: n names; `position`: of the first."""


@dataclass
class Holes:
    """Samples that could not be read. Each keeps its position and gets a healthy stand-in.

    Args:
        allowed: how many different ones a run may meet, on all ranks together, before it stops.
        report: told each one once, in a line.
    """

    allowed: int
    report: Callable[[str], None]
    found: dict[tuple[int, int], str] = field(default_factory=dict)

    def add(self, place: Place, reason: str) -> None:
        """Note a hole.

        Raises:
            ValueError: there are more than allowed.
        """
        if (place.shard, place.sample) in self.found:
            return
        self.found[place.shard, place.sample] = reason
        self.check(self.found)
        self.report(f"hole at position {place.position}: {reason}; a healthy sample stands in")

    def check(self, found: Mapping[Any, str]) -> None:
        """Stop where there are more than allowed.

        Raises:
            ValueError: there are; lists them.
        """
        if len(found) > self.allowed:
            reasons = "; ".join(found.values())
            raise ValueError(f"{len(found)} unreadable samples, data.max_bad allows {self.allowed}: {reasons}")


@dataclass
class Stream:
    """The batches of one rank, from any position on.

    Args:
        shards: where the samples lie.
        order: which sample comes when.
        augment: the joint transform of a sample.
        holes: what to do with unreadable samples.
        batch: global batch, images per optimiser step over all ranks.
        seed: of z.
        threads: readers; no part of the order.
        unit: consecutive samples of a step that go to the same rank.
    """

    shards: DataSet
    order: SampleOrder
    augment: Augment
    holes: Holes
    batch: int
    rank: int = 0
    world: int = 1
    seed: int = 0
    threads: int = 2
    unit: int = 1
    ahead: int = 2**26
    """Bytes of pictures that are read before they are asked for, at most; one step in any case."""
    device: torch.device = CPU
    """Where pictures are decoded and transformed."""

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """This rank's share of the steps at `start`, `start + batch`, ... below `stop`; the last step may be short."""
        self.shards.report_to(self.holes.report)
        self.shards.follow(self.order, start)
        fetching = Ahead(self.shards, self._wanted(start, stop), FETCHED, self.shards.fetchers)
        try:
            for batch in self._pipeline(start, stop):
                if batch["keys"]:
                    fetching.reached(batch["position"])
                    self.shards.follow(self.order, batch["position"])
                yield batch
        finally:
            fetching.close()

    def _wanted(self, start: int, stop: int) -> Iterator[tuple[int, Extent]]:
        for place in chain.from_iterable(self.places(start, stop)):
            with suppress(ValueError, OSError):  # damaged rows, a store that is down: told by who reads the sample
                yield place.position, self.shards.extent(place.shard, place.sample)

    def places(self, start: int, stop: int) -> Iterator[list[Place]]:
        """The ordered source: this rank's places, a list for each step."""
        return steps(self.order, start, stop, self.batch, self.rank, self.world, self.unit)

    def _pipeline(self, start: int, stop: int) -> Iterable[Batch]:
        share = -(-self.batch // self.unit // self.world) * self.unit
        ahead = max(share, self.ahead // self._bytes)
        return wds.DataPipeline(
            partial(self.places, start, stop),
            in_parts(self.part, self.threads, ahead=ahead + self.threads),
            partial(map, joined),
        )

    @property
    def _bytes(self) -> int:
        """Of a sample after the transform."""
        height, width = sides(self.augment.crop)
        return height * width * (sum(self.shards.channels) + 4 * self.shards.index.instances)

    def part(self, places: Sequence[Place]) -> Batch:
        """Some samples of a step."""
        keys, stacked = self._together(places) or self._one_by_one(places)
        for i, place in enumerate(places):
            if self.augment.mirrors(place.position):  # here, in memory that lies together, it takes half the time
                for pictures in stacked.values():
                    pictures[i] = pictures[i].flip(-1)
        z = noise_keys(self.seed, [place.position for place in places])
        return {**stacked, "z": z, "keys": keys, "position": places[0].position}

    def _together(self, places: Sequence[Place]) -> tuple[list[str], Members] | None:
        """All at once, where nothing is resized or cut; None where that is not so, or one of them is bad."""
        if not self._whole:
            return None
        try:
            return self.shards.read_together([(place.shard, place.sample) for place in places])
        except ValueError:
            return None

    @cached_property
    def _whole(self) -> bool:
        """Pictures are fed as they are."""
        index, size = self.shards.index, sides(self.augment.crop)
        same = index.smallest == index.largest == size and sides(self.augment.load) in (size, (0, 0))
        return same and self.shards.side_by_side and self.device.type == "cpu"

    def _one_by_one(self, places: Sequence[Place]) -> tuple[list[str], Members]:
        keys, members = zip(*map(self.read, places), strict=True)
        return list(keys), {name: stack([m[name] for m in members]) for name in members[0]}

    def read(self, place: Place) -> tuple[str, Members]:
        """One sample, cut; a hole is replaced by a sample of its neighbourhood in the order."""
        for attempt in range(100):
            shard, sample = (place.shard, place.sample) if attempt == 0 else self._stand_in(place.position, attempt)
            try:
                key, members = self.shards.read(shard, sample, self.device)
                return key, self.augment.cut(members, place.position)
            except ValueError as error:
                self.holes.add(place._replace(shard=shard, sample=sample), str(error))
        raise ValueError(f"position {place.position}: 100 stand-ins in a row are unreadable")

    def _stand_in(self, position: int, attempt: int) -> tuple[int, int]:
        """A sample of the same thousand positions, chosen by the position alone: the same on every machine."""
        first = position - position % 1000
        near = first + int(keyed.key(self.seed, STAND_IN, position, attempt) % np.uint64(1000))
        _, shard, sample = self.order.at(np.asarray([near]))
        return int(shard[0]), int(sample[0])


def joined(parts: Sequence[Batch]) -> Batch:
    """The parts of a step as one batch; of a rank that has no sample in it, an empty one."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return {"x": torch.empty(0), "y": torch.empty(0), "z": torch.empty(0), "keys": [], "position": -1}
    tensors = {name: torch.cat([part[name] for part in parts]) for name, v in parts[0].items() if isinstance(v, Tensor)}
    return {**tensors, "keys": [key for part in parts for key in part["keys"]], "position": parts[0]["position"]}


def stack(pictures: Sequence[Tensor]) -> Tensor:
    """`[C,H,W]` each -> `[N,C,H,W]` in channels_last, the order in which decoders write and networks read."""
    return torch.stack([picture.permute(1, 2, 0) for picture in pictures]).permute(0, 3, 1, 2)


def noise_keys(seed: int, positions: list[int]) -> Tensor:
    """Keys of G's noise, int64 `[n]`, one a position."""
    return torch.from_numpy(keyed.key(seed, NOISE, np.asarray(positions, np.int64)).astype(np.int64))


def in_threads(
    function: Callable[[Any], Any], threads: int, ahead: int
) -> Callable[[Iterable[list[Any]]], Iterator[list[Any]]]:
    """A stage that maps lists item by item in threads, in order, at most `ahead` items before they are asked for."""
    stage = in_parts(lambda items: [function(item) for item in items], threads, ahead)
    return lambda lists: (list(chain.from_iterable(parts)) for parts in stage(lists))


def in_parts(
    function: Callable[[list[Any]], Any], threads: int, ahead: int
) -> Callable[[Iterable[list[Any]]], Iterator[list[Any]]]:
    """As `in_threads`, but `function` maps up to `GRAIN` items of a list at once: a list of items -> of results."""

    def stage(lists: Iterable[list[Any]]) -> Iterator[list[Any]]:
        pending: deque[tuple[int, list[Future[Any]]]] = deque()
        in_flight = 0
        pool = ThreadPoolExecutor(threads, thread_name_prefix="reader")
        try:
            for items in lists:
                parts = [items[i : i + GRAIN] for i in range(0, len(items), GRAIN)]
                pending.append((len(items), [pool.submit(function, part) for part in parts]))
                in_flight += len(items)
                while in_flight > ahead:
                    count, futures = pending.popleft()
                    in_flight -= count
                    yield [future.result() for future in futures]
            for _, futures in pending:
                yield [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    return stage
