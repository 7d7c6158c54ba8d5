# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Seeds that depend only on what is drawn, not on order, concurrency or interruptions."""

import hashlib
import random
from collections.abc import Sequence

LARGEST_SEED = (1 << 53) - 1
"""The largest run seed: larger numbers are not exact in JSON, the format of journals and manifests."""
_BITS = 0x7FFFFFFF
"""31 bits: a positive integer for every server."""


def derive_seed(run_seed: int, *parts: str | int) -> int:
    """Return a seed in [0, 2**31) for one draw, such as ``derive_seed(1234, record.id, "answer", 0)``."""
    text = "\x00".join(map(str, (run_seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big") & _BITS


def generator(run_seed: int, *parts: str | int) -> random.Random:
    """Return a random generator for one draw."""
    return random.Random(derive_seed(run_seed, *parts))


def rendezvous(run_seed: int, *parts: str | int, names: Sequence[str]) -> list[int]:
    """Return the positions in `names` in an order drawn for these parts (rendezvous hashing).

    Adding or removing a name keeps the order of the others: with n names, about 1/n of all draws get another first
    one.
    """
    start = hashlib.sha256("\x00".join(map(str, (run_seed, *parts, ""))).encode("utf-8", "surrogatepass"))
    weights: list[bytes] = []
    for name in names:
        weight = start.copy()
        weight.update(name.encode("utf-8", "surrogatepass"))
        weights.append(weight.digest())
    return sorted(range(len(names)), key=weights.__getitem__, reverse=True)
