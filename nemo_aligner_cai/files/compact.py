# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A set and a map of 64-bit integers, for as many rows as a data set has.

Python's own take some 100 bytes an entry; these take 11 and 21. Keys are spread over sorted arrays by their first
bits, which content hashes fill evenly. An array grows by a sixteenth at a time, and there is no moment at which
everything is in memory twice.
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
        """Put a key in; returns whether it is new.

        Raises:
            IndexError, OverflowError: the key is not such an integer.
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
        """In ascending order."""
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
        """The key's value; None where the key is not in."""
        shard = key >> _SHIFT
        keys = self._keys[shard]
        place = bisect_left(keys, key)
        return self._values[shard][place] if place < len(keys) and keys[place] == key else None

    def __len__(self) -> int:
        return sum(map(len, self._keys.values()))
