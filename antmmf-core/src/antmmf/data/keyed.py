"""Hashes and random generators that are functions of what they are for, never of who asks or when."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

_MASK = (1 << 64) - 1


def sample_id(dataset: str, key: str) -> int:
    """The signed 64-bit id of a sample: it stays the same when a data set grows or is put in another order."""
    return int(sample_ids(dataset, [key])[0])


def sample_ids(dataset: str, keys: Iterable[str]) -> npt.NDArray[np.int64]:
    """The ids of many samples, in half the time."""
    # The length in front keeps ("a", "b/c") apart from ("a/b", "c").
    start = f"{len(dataset)}:{dataset}/".encode("utf-8", "surrogatepass")
    digests = [blake2b(start + key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def hashed(*keys: int | str) -> int:
    """An unsigned 64-bit hash of all keys in their order."""
    return int.from_bytes(_digest(keys)[:8], "little")


def mixed(seed: int, *numbers: int) -> int:
    """An unsigned 64-bit number for ``seed``, itself a hash, and ``numbers``: where ``hashed`` would be too slow."""
    for number in numbers:  # splitmix64
        seed = ((seed ^ number) + 0x9E3779B97F4A7C15) & _MASK
        seed = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        seed = ((seed ^ (seed >> 27)) * 0x94D049BB133111EB) & _MASK
        seed ^= seed >> 31
    return seed


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """A generator of its own for (seed, keys): equal keys give equal draws, in every process."""
    return np.random.Generator(np.random.Philox(key=np.frombuffer(_digest((seed, *keys)), dtype="<u8")))


def _digest(keys: tuple[int | str, ...]) -> bytes:
    exact = tuple(key if isinstance(key, str) else int(key) for key in keys)  # repr(np.int64(1)) is not repr(1)
    return blake2b(repr(exact).encode("utf-8", "surrogatepass"), digest_size=16).digest()
