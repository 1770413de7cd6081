"""The contract of a data set: what the training, the stream and translating ask of one, whatever it is made of."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from p2p.data.decode import CPU
from p2p.data.direct import Extent
from p2p.data.epochs import SampleOrder
from p2p.data.format import Index
from p2p.data.shardset import Members


class DataSet(Protocol):
    """Samples in numbered shards. One set of shards is a `p2p.data.shardset.ShardSet`, several in one order are a
    `p2p.data.mixed.Mixed`."""

    @property
    def folder(self) -> str:
        """Where it lies, for messages."""
        ...

    @property
    def index(self) -> Index:
        """Its shards, and what all samples have in common: classes, instances, the sizes of pictures."""
        ...

    @property
    def counts(self) -> list[int]:
        """Samples in each shard."""
        ...

    @property
    def channels(self) -> tuple[int, int]:
        """Of x and of y as the reader gives them; of label maps 1."""
        ...

    @property
    def members(self) -> frozenset[str]:
        """What `read` gives: x, y, and instances where there are any."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the sequence of samples; a run that goes on must find the same."""
        ...

    @property
    def generations(self) -> list[int]:
        """Of each index that it consists of."""
        ...

    @property
    def seekable(self) -> bool:
        """Parts of a shard can be read."""
        ...

    @property
    def side_by_side(self) -> bool:
        """Both pictures of a sample are one, and several samples can be read together."""
        ...

    @property
    def fetchers(self) -> int:
        """Threads that read ahead."""
        ...

    def training_order(self, *, seed: int, lanes: int, block: int, window: int) -> SampleOrder:
        """The global order of the samples in training; see `p2p.data.orders.ordered`.

        Raises:
            ValueError: there are no samples, or a size does not fit.
        """
        ...

    def report_to(self, tell: Callable[[str], None]) -> None:
        """From here on `tell` is told of what a store does that is worth knowing."""
        ...

    def follow(self, order: SampleOrder, position: int = 0) -> None:
        """From here on samples are asked for in this order."""
        ...

    def read(self, shard: int, sample: int, device: torch.device = CPU) -> tuple[str, Members]:
        """Key and members of one sample.

        Raises:
            ValueError: it cannot be read; says why.
            StoreError: the store does not answer.
        """
        ...

    def read_together(self, places: Sequence[tuple[int, int]]) -> tuple[list[str], Members]:
        """Keys and stacked members of several samples, where the set is `side_by_side`; raises as `read`."""
        ...

    def extent(self, shard: int, sample: int) -> Extent:
        """What is read at once where a sample is."""
        ...

    def ensure(self, extent: Extent) -> None:
        """Have it read, or fetched, before it is needed."""
        ...
