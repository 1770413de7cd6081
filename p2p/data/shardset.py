"""A folder of shards, read by threads, sample by sample, each checked against the index."""

import os
import threading
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from p2p.data import format as form
from p2p.data.encoded import decode_ids

OPEN_SHARDS = 256
PNG = b"\x89PNG"


@dataclass
class ShardSet:
    """A folder of shards, read by threads.

    Args:
        folder: what `shards.pack` wrote.
        reverse: y -> x instead of x -> y.

    Raises:
        ValueError: the index is missing or damaged, or a shard does not fit it, or y -> x would make label maps.
    """

    folder: str
    reverse: bool = False
    index: form.Index = field(init=False)

    def __post_init__(self) -> None:
        self.index = form.read_index(self.folder)
        if self.reverse and self.index.classes:
            raise ValueError(f"{self.folder}: its x are label maps, and G makes pictures; leave reverse out")
        form.check_shards(self.folder, self.index)
        self._files: dict[int, tuple[Any, np.ndarray]] = {}
        self._lock = threading.Lock()

    @cached_property
    def counts(self) -> list[int]:
        return [shard.samples for shard in self.index.shards]

    @cached_property
    def fingerprint(self) -> str:
        """Of the sequence of samples that the order is cut from."""
        return f"{form.crc(repr([(s.samples, s.sha256) for s in self.index.shards]).encode()):08x}"

    @property
    def channels(self) -> tuple[int, int]:
        """Of x and of y; of label maps 1."""
        a, b = self.index.channels
        return (b, a) if self.reverse else (a, b)

    def read(self, shard: int, sample: int) -> tuple[str, dict[str, Tensor]]:
        """Key and members of one sample: `x` and `y` uint8 `[C,H,W]`; `instances` int32 `[1,H,W]` where there are any.

        Raises:
            ValueError: the bytes are not those that were packed, or are no picture; says shard and byte.
        """
        file, rows = self._open(shard)
        offset, size, crc = rows[sample].item()
        data = os.pread(file.fileno(), size, offset)
        where = f"{self.index.shards[shard].name} at byte {offset}"
        if len(data) != size or form.crc(data) != crc:
            raise ValueError(f"{where}: the {size} bytes of sample {sample} are not those that were packed")
        try:
            members = form.split_members(data)
            sides = self._sides(members)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"{where}: sample {sample} cannot be decoded ({error})") from error
        return members["__key__"].decode(), sides

    def _sides(self, members: dict[str, bytes]) -> dict[str, Tensor]:
        pictures = {name.partition(".")[0]: data for name, data in members.items()}
        a, b = self.index.channels
        if self.index.layout == "two":
            x, y = _decode(pictures["a"], a), _decode(pictures["b"], b)
        else:
            left, right = _decode(pictures["ab"], a).chunk(2, dim=-1)
            x, y = (left, right) if self.index.layout == "left" else (right, left)
        if self.index.classes and int(x.max()) >= self.index.classes:
            raise ValueError(f"label {int(x.max())} is not below the {self.index.classes} classes of {form.INDEX}")
        sides = {"x": y, "y": x} if self.reverse else {"x": x, "y": y}
        return sides | ({"instances": _ids(pictures["inst"])} if self.index.instances else {})

    def _open(self, shard: int) -> tuple[Any, np.ndarray]:
        """An open file and its rows. Files are closed when the last thread that reads them lets go."""
        if (opened := self._files.get(shard)) is not None:
            return opened
        with self._lock:
            if shard not in self._files:
                info = self.index.shards[shard]
                if len(self._files) >= OPEN_SHARDS:
                    del self._files[next(iter(self._files))]
                path = Path(self.folder) / info.name
                self._files[shard] = open(path, "rb", buffering=0), form.read_rows(self.folder, info)  # noqa: SIM115
            return self._files[shard]


def _decode(data: bytes, channels: int) -> Tensor:
    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode)


def _ids(data: bytes) -> Tensor:
    if data.startswith(PNG):
        return decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED).to(
            torch.int32
        )
    return torch.from_numpy(decode_ids(data))[None]
