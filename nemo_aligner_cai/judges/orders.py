# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Comparison of the presentation orders of one set of candidates, from new verdicts or from saved ones.

Input:  verdicts on candidates 0 and 1: shown (0, 1) with probability 0.9, shown (1, 0) with probability 0.4
Output: order_means -> [0.9, 0.6], the probability per order that candidate 0 is better; is_flip -> False
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

from nemo_aligner_cai.data.judged_row import JudgedVerdict
from nemo_aligner_cai.judges.base import BOTH_ORDERS, FIRST, FLIPS, VERDICTS, Verdict

AnyVerdict = Verdict | JudgedVerdict


def comparable(verdicts: Sequence[AnyVerdict]) -> list[AnyVerdict]:
    """Return the verdicts of the principles that have a probability in all orders.

    The orders are compared over the same principles.
    """
    orders = {verdict.shown for verdict in verdicts}
    scored = Counter(verdict.principle for verdict in verdicts if verdict.probability is not None)
    return [verdict for verdict in verdicts if scored[verdict.principle] == len(orders)]


def order_means(verdicts: Sequence[AnyVerdict], first: int) -> list[float | Fraction]:
    """Return, for each order, the mean probability that candidate `first` of the pair is better.

    Args:
        verdicts: verdicts of `comparable` on one pair.
        first: one candidate of the pair.
    """
    return [
        _mean([_probability_of(first, verdict) for verdict in verdicts if verdict.shown == shown])
        for shown in dict.fromkeys(verdict.shown for verdict in verdicts)
    ]


def means_flip(means: Sequence[float | Fraction]) -> bool | None:
    """Return True if the orders prefer different candidates; None without two orders."""
    return min(means) < 0.5 < max(means) if len(means) > 1 else None


def is_flip(verdicts: Sequence[AnyVerdict]) -> bool | None:
    """Return True if the orders disagree on one set of candidates; None without verdicts in both orders.

    With probabilities, the means of the orders are compared; without, the named candidates.
    """
    if compared := comparable(verdicts):
        return means_flip(order_means(compared, compared[0].shown[0]))
    if len(verdicts) < 2 or any(verdict.better is None for verdict in verdicts):
        return None
    return len({(verdict.better, verdict.worse) for verdict in verdicts}) > 1


def position_counts(verdicts: Iterable[JudgedVerdict]) -> Counter[str]:
    """Return the counts for `position_rates` of the saved verdicts of one prompt."""
    groups: dict[frozenset[int], list[JudgedVerdict]] = {}
    for verdict in verdicts:
        groups.setdefault(frozenset(verdict.shown), []).append(verdict)
    flips = [flip for group in groups.values() if (flip := is_flip(group)) is not None]
    decided = [verdict for group in groups.values() for verdict in group if verdict.better is not None]
    return Counter(
        {
            BOTH_ORDERS: len(flips),
            FLIPS: sum(flips),
            VERDICTS: len(decided),
            FIRST: sum(verdict.better == verdict.shown[0] for verdict in decided),
        }
    )


def _probability_of(candidate: int, verdict: AnyVerdict) -> float | Fraction:
    assert verdict.probability is not None, "only verdicts with a probability are averaged"
    return verdict.probability if verdict.shown[0] == candidate else 1 - verdict.probability


def _mean(values: Sequence[float | Fraction]) -> float | Fraction:
    return sum(values) / len(values)
