"""Damage of the files of a shard set, each at a place that the dice choose."""

import re
from random import Random
from typing import Any

from p2p.data.rows import rows_name
from tests.faultsets import PLACES, Copy, total


def header_bit(copy: Copy, dice: Random) -> None:
    shard, at = dice.choice(headers(copy))
    flip(copy, copy.shards[shard].name, at + dice.randrange(512), dice)


def data_bit(copy: Copy, dice: Random) -> None:
    shard = shard_of(copy, dice)
    taken = {at + i for n, at in headers(copy) if n == shard for i in range(512)}
    flip(copy, copy.shards[shard].name, dice.choice([*(set(range(content(copy, shard))) - taken)]), dice)


def end_bit(copy: Copy, dice: Random) -> None:
    shard = shard_of(copy, dice)
    flip(copy, copy.shards[shard].name, dice.randrange(content(copy, shard), copy.shards[shard].bytes), dice)


def cut(copy: Copy, dice: Random, where: str) -> None:
    shard, at = dice.choice(headers(copy))
    at += {"before": 0, "header": dice.randrange(1, 512), "data": 512 + dice.randrange(1, 300)}[where]
    name = copy.shards[shard].name
    copy.write(name, copy.read(name)[:at])


def cut_at_end(copy: Copy, dice: Random) -> None:
    """After the last sample, or in the end marker."""
    shard = shard_of(copy, dice)
    name = copy.shards[shard].name
    copy.write(name, copy.read(name)[: dice.randrange(content(copy, shard), copy.shards[shard].bytes)])


def zeros(copy: Copy, dice: Random) -> None:
    shard = shard_of(copy, dice)
    name, data = copy.shards[shard].name, bytearray(copy.pristine.tars[shard])
    at = dice.randrange(0, content(copy, shard) - 4096, dice.choice([1, 512]))
    data[at : at + 4096] = bytes(4096)
    copy.write(name, data)


def twice(copy: Copy, dice: Random) -> int:
    """A sample comes twice; returns its shard."""
    shard, sample = dice.choice(PLACES)
    start, end = run_of(copy, shard, sample)
    data = copy.pristine.tars[shard]
    copy.write(copy.shards[shard].name, data[:end] + data[start:end] + data[end:])
    return shard


def member_twice(copy: Copy, dice: Random) -> None:
    """The first file of a sample comes twice."""
    shard, sample = dice.choice(PLACES)
    start, _ = run_of(copy, shard, sample)
    first, second, *_ = [at for n, at in headers(copy) if n == shard and at >= start]
    data = copy.pristine.tars[shard]
    copy.write(copy.shards[shard].name, data[:second] + data[first:second] + data[second:])


def swapped(copy: Copy, dice: Random, same_size: bool) -> None:
    pairs = [(a, b) for b in range(len(copy.shards)) for a in range(b)]
    alike = [(a, b) for a, b in pairs if copy.shards[a].bytes == copy.shards[b].bytes]
    a, b = dice.choice(alike if same_size else [pair for pair in pairs if pair not in alike])
    names = copy.shards[a].name, copy.shards[b].name
    for name, data in zip(names, reversed([copy.read(name) for name in names]), strict=True):
        copy.write(name, data)


def wrong_count(copy: Copy, dice: Random) -> None:
    """Of a shard, of all, or of both so that they fit."""
    more, shard = dice.choice([-3, -1, 1, 2, 40]), shard_of(copy, dice)
    what = dice.choice(["shard", "total", "both"])

    def change(tree: dict[str, Any]) -> None:
        tree["shards"][shard]["samples"] += more * (what != "total")
        tree["samples"] = total(tree) if what == "both" else tree["samples"] + more * (what == "total")

    copy.edit_index(change)


def wrong_bytes(copy: Copy, dice: Random) -> None:
    change, shard = dice.choice([-10240, -512, -1, 1, 10240]), shard_of(copy, dice)
    copy.edit_index(lambda tree: tree["shards"][shard].update(bytes=tree["shards"][shard]["bytes"] + change))


def wrong_sha256(copy: Copy, dice: Random) -> None:
    shard = shard_of(copy, dice)
    copy.edit_index(lambda tree: tree["shards"][shard].update(sha256=f"{dice.getrandbits(256):064x}"))


def index_name_bit(copy: Copy, dice: Random) -> None:
    """In the name of a field."""
    name = dice.choice([*re.finditer(r'"(\w+)":', copy.read("index.json").decode())])
    flip(copy, "index.json", dice.randrange(*name.span(1)), dice)


def rows_bit(copy: Copy, dice: Random) -> None:
    name = rows_name(copy.shards[shard_of(copy, dice)].name)
    flip(copy, name, dice.randrange(len(copy.read(name))), dice)


def rows_cut(copy: Copy, dice: Random) -> None:
    name = rows_name(copy.shards[shard_of(copy, dice)].name)
    copy.write(name, copy.read(name)[: dice.randrange(len(copy.read(name)))])


def missing(copy: Copy, dice: Random) -> None:
    name = copy.shards[shard_of(copy, dice)].name
    copy.remove(dice.choice([name, name, rows_name(name)]))


def of_another_set(copy: Copy, dice: Random) -> None:
    """A shard is that of another set, cut or filled up to its size."""
    shard = shard_of(copy, dice)
    name = copy.shards[shard].name
    other = dice.choice(sorted(p for p in copy.pristine.folder.parent.iterdir() if p != copy.pristine.folder))
    size = copy.shards[shard].bytes
    copy.write(name, (other / name).read_bytes()[:size].ljust(size, b"\0"))


def flip(copy: Copy, name: str, byte: int, dice: Random) -> None:
    data = bytearray(copy.read(name))
    data[byte] ^= 1 << dice.randrange(8)
    copy.write(name, data)


def shard_of(copy: Copy, dice: Random) -> int:
    return dice.randrange(len(copy.shards))


def run_of(copy: Copy, shard: int, sample: int) -> tuple[int, int]:
    """First byte of a sample, and the one after its last."""
    offset, size, _ = copy.pristine.rows[shard][sample].item()
    return offset, offset + size


def content(copy: Copy, shard: int) -> int:
    """Bytes of the samples of a shard."""
    return run_of(copy, shard, -1)[1]


def headers(copy: Copy) -> list[tuple[int, int]]:
    """Shard and first byte of every header of a file."""
    found = []
    for shard, tar in enumerate(copy.pristine.tars):
        at = 0
        while at < content(copy, shard):
            found.append((shard, at))
            at += 512 + -(-int(tar[at + 124 : at + 135], 8) // 512) * 512
    return found
