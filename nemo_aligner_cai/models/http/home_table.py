# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Home servers of requests with a common prompt prefix, by rendezvous hashing.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998. If one of N servers joins or
leaves, only 1/N of the homes change, so the prefix caches of the other servers remain useful.
"""

from hashlib import blake2b

_BUCKETS = 1 << 13
"""Affinity values are grouped into buckets. With a home for each bucket, a look-up does not depend on N."""


class HomeTable:
    """Maps affinity values to servers, which are known by their addresses.

    A look-up is O(1), except the first one of a bucket after its home has left, which is O(N). A server that joins
    costs a comparison for each bucket in use.
    """

    def __init__(self) -> None:
        self._seeds: dict[str, int] = {}
        self._homes: dict[int, tuple[int, str]] = {}

    def add(self, address: str) -> None:
        """Add a server and make it the home of the buckets for which it has the highest score."""
        seed = int.from_bytes(blake2b(address.encode(), digest_size=8).digest(), "big")
        self._seeds[address] = seed
        for bucket, home in self._homes.items():
            score = _score(bucket, seed)
            if score > home[0]:
                self._homes[bucket] = (score, address)

    def remove(self, address: str) -> None:
        """Remove a server. Its buckets get other homes at their next look-up."""
        del self._seeds[address]
        for bucket in [bucket for bucket, home in self._homes.items() if home[1] == address]:
            del self._homes[bucket]

    def home(self, affinity: int) -> str:
        """Return the address of an affinity value's home. The table must not be empty."""
        bucket = affinity % _BUCKETS
        home = self._homes.get(bucket)
        if home is None:
            home = self._homes[bucket] = max((_score(bucket, seed), name) for name, seed in self._seeds.items())
        return home[1]


def _score(bucket: int, seed: int) -> int:
    # The finalizer of SplitMix64: neighboring buckets must get independent scores.
    mixed = (seed ^ (bucket * 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return mixed ^ (mixed >> 31)
