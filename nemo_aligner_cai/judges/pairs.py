# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Selects which of N candidates are compared, and which of the comparisons are kept.

    one         a random pair: one comparison per prompt, as in arXiv 2212.08073
    all         every pair: N (N - 1) / 2 comparisons; all clear ones are kept
    best-worst  every pair is compared; only the pair of the most and the least preferred candidate is kept
    tournament  knock-out: N - 1 comparisons in log2(N) levels; all clear ones are kept

Knock-out is the usual way to choose the best of N if comparisons are expensive (arXiv 2501.13007): every candidate but
the best loses once, so no comparison is spent on two candidates that already lost. A Swiss system would rank all N,
which no trainer here needs, and for small N it costs as many comparisons as "all".
"""

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Literal

from nemo_aligner_cai.judges.base import Preference

Pairs = Literal["one", "all", "best-worst", "tournament"]
Pair = tuple[int, int]


def levels(pairs: Pairs, candidates: int) -> int:
    """Return the number of levels; the matches of a level depend on the results of the previous one."""
    return max(1, (candidates - 1).bit_length()) if pairs == "tournament" else 1


def matches(pairs: Pairs, remaining: Sequence[int], rng: random.Random) -> list[Pair]:
    """Return the comparisons of one level.

    Args:
        pairs: the selection.
        remaining: the candidates that remain, in the order of `remaining_after`.
        rng: draws the pair of "one".
    """
    if len(remaining) < 2:
        return []
    if pairs == "tournament":
        return list(zip(remaining[::2], remaining[1::2], strict=False))
    every = list(combinations(remaining, 2))
    return [rng.choice(every)] if pairs == "one" else every


def remaining_after(remaining: Sequence[int], winners: Mapping[Pair, int]) -> list[int]:
    """Return the candidates that remain after a level of a tournament.

    A candidate without an opponent moves to the front, so that the next one without an opponent is another.
    """
    idle = list(remaining[-1:]) if len(remaining) % 2 else []
    return [*idle, *winners.values()]


def kept(pairs: Pairs, preferences: Sequence[Preference], candidates: int) -> list[Preference]:
    """Return the clear preferences that are kept: all, or for "best-worst" that of the two extreme candidates."""
    if pairs != "best-worst":
        return list(preferences)
    # Exact sums: equal wins must compare equal in whatever order they are added.
    wins = [Fraction(0)] * candidates
    for preference in preferences:
        p = Fraction(1) if preference.probability is None else Fraction(str(preference.probability))
        wins[preference.chosen] += p
        wins[preference.rejected] -= p
    best, worst = max(range(candidates), key=wins.__getitem__), min(range(candidates), key=wins.__getitem__)
    return [one for one in preferences if (one.chosen, one.rejected) == (best, worst)]
