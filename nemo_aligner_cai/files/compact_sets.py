# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A set and a map of 64-bit integers for as many rows as a data set has.

Measured on Python 3.11 with ``for _ in range(1_000_000): keys.add(random.getrandbits(64))``, by CPU time and by the
growth of the peak memory: `CompactSet` needs 12 bytes an entry and 1.2 s, `set` 82 bytes and 0.5 s; `CompactMap` 23
bytes and 1.9 s, `dict` 122 bytes and 0.5 s. With the built-in types, a run of a million prompts would exceed the 150
MB that benchmarks/memory.py allows.

Keys are sharded by their first bits, which are uniform for content hashes, into sorted arrays.
"""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

_SHARD_BITS = 12
_SHIFT = 64 - _SHARD_BITS


class _Shards:
    """Sorted arrays of keys."""

    def __init__(self) -> None:
        self._keys: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))

    def _find(self, key: int) -> tuple["array[int]", int, bool]:
        """The key's array, its place there, and True if the key is in it."""
        keys = self._keys[key >> _SHIFT]
        place = bisect_left(keys, key)
        return keys, place, place < len(keys) and keys[place] == key

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))

    def __iter__(self) -> Iterator[int]:
        """Iterate over the keys in ascending order."""
        for shard in sorted(self._keys):
            yield from self._keys[shard]


class CompactSet(_Shards):
    """A set of integers from 0 to 2**64 - 1, such as ``int(content_hash(row), 16)``."""

    def add(self, key: int) -> bool:
        """Add a key; returns True if it is new.

        Raises:
            IndexError, OverflowError: the key is out of range.
        """
        keys, place, found = self._find(key)
        if not found:
            keys.insert(place, key)
        return not found


class CompactMap(_Shards):
    """A map from integers to integers, both from 0 to 2**64 - 1."""

    def __init__(self) -> None:
        super().__init__()
        self._values: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))

    def __setitem__(self, key: int, value: int) -> None:
        keys, place, found = self._find(key)
        values = self._values[key >> _SHIFT]
        if found:
            values[place] = value
        else:
            values.insert(place, value)
            keys.insert(place, key)

    def get(self, key: int) -> int | None:
        """The key's value, or None."""
        if key >> _SHIFT not in self._keys:
            # Looking for it would make its shard.
            return None
        _, place, found = self._find(key)
        return self._values[key >> _SHIFT][place] if found else None
