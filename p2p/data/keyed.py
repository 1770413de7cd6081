"""Randomness as a pure function: numbers, permutations and seeds that depend on a key and an index, on nothing else.

Nothing here has a state, so a run can stop anywhere and go on exactly, and no number depends on how many
processes or threads there are.
"""

from collections.abc import Callable

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
_SHIFTS = tuple(np.uint64(s) for s in (30, 27, 31))
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_ROUNDS = 6
_WORD = (1 << 64) - 1


def mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): uint64 in, well-stirred uint64 out."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> _SHIFTS[0])) * _FACTORS[0]
        values = (values ^ (values >> _SHIFTS[1])) * _FACTORS[1]
    return values ^ (values >> _SHIFTS[2])


def key(*parts: int | np.ndarray) -> np.ndarray:
    """One uint64 key of several integers; arrays among them broadcast."""
    result = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            word = np.uint64(part & _WORD) if isinstance(part, int) else part.astype(np.uint64)
            result = mix(result * np.uint64(3) + word + np.uint64(GOLDEN))
    return result


def uniform(*parts: int) -> float:
    """A number in [0, 1) of several integers: the top 53 bits of their `key`."""
    return (number(*parts) >> 11) / (1 << 53)


def number(*parts: int) -> int:
    """The `key` of several integers, computed on plain integers, which is ten times as fast for one number."""
    word = 0
    for part in parts:
        word = (word * 3 + (part & _WORD) + GOLDEN) & _WORD
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
        word ^= word >> 31
    return word


def permute(index: np.ndarray, size: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Where a keyed permutation of `range(size)` sends `index`: int64 `[n]`, without a table.

    A Feistel network over the smallest rectangle a x b >= size, with addition modulo its sides in place of XOR,
    walked until the result lies inside (format-preserving encryption, Black and Rogaway 2002). `size` and `keys`
    may differ from element to element.
    """
    return _walk(_feistel, index, size, keys)


def unpermute(index: np.ndarray, size: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """What `permute` sends to `index`."""
    return _walk(_backwards, index, size, keys)


def _walk(step: Callable[..., np.ndarray], index: np.ndarray, size: np.ndarray, keys: np.ndarray) -> np.ndarray:
    index, size, keys = (np.atleast_1d(a) for a in np.broadcast_arrays(index, size, keys))
    a = np.ceil(np.sqrt(size.astype(np.float64))).astype(np.int64)
    b = -(-size // a)
    out = index.astype(np.int64)
    walking = np.arange(out.size)
    while walking.size:
        out[walking] = step(out[walking], a[walking], b[walking], keys[walking])
        walking = walking[out[walking] >= size[walking]]
    return out


def _feistel(index: np.ndarray, a: np.ndarray, b: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`index` in [0, a*b) -> [0, a*b), one to one."""
    left, right = index // b, index % b
    for i in range(0, _ROUNDS, 2):
        left = (left + _round(right, keys, i, a)) % a
        right = (right + _round(left, keys, i + 1, b)) % b
    return left * b + right


def _backwards(index: np.ndarray, a: np.ndarray, b: np.ndarray, keys: np.ndarray) -> np.ndarray:
    left, right = index // b, index % b
    for i in range(_ROUNDS - 2, -1, -2):
        right = (right - _round(left, keys, i + 1, b)) % b
        left = (left - _round(right, keys, i, a)) % a
    return left * b + right


def _round(half: np.ndarray, keys: np.ndarray, i: int, modulus: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        of_round = mix(keys + np.uint64((i + 1) * GOLDEN & _WORD))
        stirred = mix(of_round + half.astype(np.uint64) * np.uint64(GOLDEN))
    return (stirred % modulus.astype(np.uint64)).astype(np.int64)
