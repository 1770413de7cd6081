"""Equal and nearly equal numbers among millions, without comparing each with each."""

from collections.abc import Iterator

import numpy as np

NEAR = 3
"""Bits of 64 in which perceptual hashes of one picture, coded or scaled anew, may differ."""
BANDS = 16 * np.arange(NEAR + 1, dtype=np.uint64)
"""Hashes that differ in at most 3 bits have one of these four bands of 16 in common."""


def repeats(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of values that come a second time or more, and for each the place of the first: int64 `[n]` each."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    origin = first[inverse]
    again = np.flatnonzero(origin != np.arange(len(values)))
    return again, origin[again]


def common(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `values` of what `others` have, too, and for each the first place there: int64 `[n]` each."""
    known, first = np.unique(others, return_index=True)
    found = np.flatnonzero(np.isin(values, known))
    return found, first[np.searchsorted(known, values[found])]


def near(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of places of different hashes, uint64, that differ in at most `NEAR` bits; some pairs come repeatedly."""
    for band in BANDS:
        part = (hashes >> band) & np.uint64(0xFFFF)
        order = np.argsort(part, kind="stable")
        sorted_part = part[order]
        left = np.arange(len(order) - 1)
        for lag in range(1, len(order)):
            left = left[left + lag < len(order)]
            left = left[sorted_part[left] == sorted_part[left + lag]]
            if not left.size:
                break
            a, b = order[left], order[left + lag]
            close = (_bits(hashes[a] ^ hashes[b]) <= NEAR) & (hashes[a] != hashes[b])
            yield a[close], b[close]


def _bits(values: np.ndarray) -> np.ndarray:
    """How many bits of each uint64 are 1."""
    return np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(1)


def earliest_near(hashes: np.ndarray) -> np.ndarray:
    """For each hash, uint64 `[n]`, the first place of one that is near or equal: int64 `[n]`, its own where there is
    none before it."""
    known, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    best = first.copy()
    for a, b in near(known):
        np.minimum.at(best, a, first[b])
        np.minimum.at(best, b, first[a])
    return np.minimum(best[inverse], np.arange(len(hashes)))


def near_in(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each hash the first place in `others` of one that is near or equal: int64 `[n]`, -1 where there is none."""
    mine, inverse = np.unique(hashes, return_inverse=True)
    theirs, first = np.unique(others, return_index=True)
    none = len(others)
    best = np.full(len(mine), none)
    for a, b in near(np.concatenate([mine, theirs])):
        across = (a < len(mine)) != (b < len(mine))
        low, high = np.minimum(a, b)[across], np.maximum(a, b)[across] - len(mine)
        np.minimum.at(best, low, first[high])
    places, there = common(mine, others)
    np.minimum.at(best, places, there)
    return np.where(best == none, -1, best)[inverse]
