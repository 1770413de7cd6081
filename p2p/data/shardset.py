"""The pairs of a set of shards as tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from p2p.data.decode import CPU, jpegs, numbers, picture
from p2p.data.epochs import SampleOrder
from p2p.data.format import INDEX
from p2p.data.orders import ordered
from p2p.data.samples import Samples
from p2p.data.tars import split_members

Members = dict[str, Tensor]
"""`x` and `y` uint8 `[C,H,W]`; `instances` int32 `[1,H,W]` where the set has them."""


@dataclass
class ShardSet(Samples):
    """A set of shards, read by threads; see `Samples`.

    Args:
        reverse: y -> x instead of x -> y.

    Raises:
        ValueError: as `Samples`, or y -> x would make label maps.
        StoreError: the store does not answer.
    """

    reverse: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reverse and self.index.classes:
            raise ValueError(f"{self.folder}: its x are label maps, and G makes pictures; leave reverse out")

    @property
    def channels(self) -> tuple[int, int]:
        """Of x and of y; of label maps 1."""
        a, b = self.index.channels
        return (b, a) if self.reverse else (a, b)

    @property
    def members(self) -> frozenset[str]:
        """Names of what `read` gives."""
        return frozenset(["x", "y", "instances"] if self.index.instances else ["x", "y"])

    @property
    def side_by_side(self) -> bool:
        """Both pictures of a pair are one; see `read_together`."""
        return self.index.layout != "two"

    def training_order(self, *, seed: int, lanes: int, block: int, window: int) -> SampleOrder:
        """The global order in training; see `p2p.data.orders.ordered`."""
        return ordered([self.counts], [1], seed=seed, lanes=lanes, block=block, window=window)

    def read(self, shard: int, sample: int, device: torch.device = CPU) -> tuple[str, Members]:
        """Key and members of one sample, on `device`.

        Raises:
            ValueError: the bytes are not those that were packed, or are no picture; says shard and byte.
            StoreError: the store does not answer.
        """
        data, where = self.fetch(shard, sample)
        try:
            members = split_members(data)
            return bytes(members["__key__"]).decode(), self._decoded(members, device)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{where}: sample {sample} cannot be decoded ({error})") from error

    def read_together(self, places: Sequence[tuple[int, int]]) -> tuple[list[str], Members]:
        """Keys and members of several samples, stacked to `[N,C,H,W]`: of side-by-side JPEG pictures of one size, which
        are decoded to their places, without a copy.

        Raises:
            ValueError: one of them cannot be read, or is none of these.
            StoreError: the store does not answer.
        """
        samples = [split_members(self.fetch(*place)[0]) for place in places]
        roles = [self._by_role(members) for members in samples]
        (height, width), channels = self.index.largest, self.index.channels[0]
        if any("ab" not in sample for sample in roles):
            raise ValueError("both sides are not in one picture")
        pairs = jpegs([sample["ab"] for sample in roles], (height, 2 * width, channels))
        left, right = pairs.permute(0, 3, 1, 2).chunk(2, dim=-1)
        x, y = (left, right) if (self.index.layout == "left") != self.reverse else (right, left)
        return [bytes(members["__key__"]).decode() for members in samples], {"x": x, "y": y}

    def _by_role(self, members: Mapping[str, Any]) -> dict[str, Any]:
        roles = {role: members[extension] for role, extension in self.index.members.items() if extension in members}
        return roles or {name.partition(".")[0]: data for name, data in members.items()}

    def _decoded(self, members: Mapping[str, Any], device: torch.device) -> Members:
        roles = self._by_role(members)
        a, b = self.index.channels
        if self.index.layout == "two":
            x, y = picture(roles["a"], a, device), picture(roles["b"], b, device)
        else:
            left, right = picture(roles["ab"], a, device).chunk(2, dim=-1)
            x, y = (left, right) if self.index.layout == "left" else (right, left)
        if self.index.classes and int(x.max()) >= self.index.classes:
            raise ValueError(f"label {int(x.max())} is not below the {self.index.classes} classes of {INDEX}")
        sides = {"x": y, "y": x} if self.reverse else {"x": x, "y": y}
        return sides | ({"instances": numbers(roles["inst"]).to(device)} if self.index.instances else {})
