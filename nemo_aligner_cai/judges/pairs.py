# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Which of N candidates are compared with each other, and which of the comparisons are kept.

    one         a random pair: one comparison for each prompt, as in arXiv 2212.08073
    all         every pair: N (N - 1) / 2 comparisons, of which all that are clear enough are kept
    best-worst  every pair is compared, and the pair of the candidates that win most and least is kept
    tournament  knock-out: N - 1 comparisons in log2(N) levels, of which all that are clear enough are kept

Knock-out, because it is what the field chooses the best of N with when comparisons are dear (arXiv 2501.13007): each
candidate but the best loses once, so a comparison is never wasted on two that are known to be worse. A Swiss system
ranks all N, which no trainer here asks for, and takes the comparisons of "all" to do it for a small N.
"""

import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from typing import Literal, get_args

from nemo_aligner_cai.judges.base import Preference

Pairs = Literal["one", "all", "best-worst", "tournament"]
PAIRS: tuple[Pairs, ...] = get_args(Pairs)

Pair = tuple[int, int]


def levels(pairs: Pairs, candidates: int) -> int:
    """How often comparisons wait for the results of others, and one more."""
    return max(1, (candidates - 1).bit_length()) if pairs == "tournament" else 1


def matches(pairs: Pairs, standing: Sequence[int], rng: random.Random) -> list[Pair]:
    """The comparisons of one level.

    Args:
        pairs: how pairs are chosen.
        standing: the candidates that are left, in the order that the last level gave them.
        rng: draws the one pair of "one".
    """
    if len(standing) < 2:
        return []
    if pairs == "tournament":
        return list(zip(standing[::2], standing[1::2], strict=False))
    every = list(combinations(standing, 2))
    return [rng.choice(every)] if pairs == "one" else every


def standing_after(standing: Sequence[int], winners: Mapping[Pair, int]) -> list[int]:
    """The candidates that are left after a level of a tournament.

    One that had no opponent comes first, so that the next one without is another.
    """
    idle = list(standing[-1:]) if len(standing) % 2 else []
    return [*idle, *winners.values()]


def kept(pairs: Pairs, preferences: Sequence[Preference], candidates: int) -> list[Preference]:
    """The preferences that are kept out of those that are clear enough."""
    return extremes(preferences, candidates) if pairs == "best-worst" else list(preferences)


def extremes(preferences: Sequence[Preference], candidates: int) -> list[Preference]:
    """The preference between the candidates that win most and least, if they were told apart."""
    # Exact sums: equal wins must be equal in whatever order they are added.
    wins = [Fraction(0)] * candidates
    for preference in preferences:
        p = Fraction(1) if preference.probability is None else Fraction(str(preference.probability))
        wins[preference.chosen] += p
        wins[preference.rejected] -= p
    best, worst = max(range(candidates), key=wins.__getitem__), min(range(candidates), key=wins.__getitem__)
    return [one for one in preferences if (one.chosen, one.rejected) == (best, worst)]
