# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Conversion of a judge's probability to rewards and to hard pairs.

Formats with rewards get the log-odds, so that ``sigmoid(chosen_reward - rejected_reward) == probability``, as in the
Bradley-Terry model. NeMo-Aligner's Bradley-Terry reward model needs hard pairs. There are two methods:

    threshold   each pair once, in the judge's order; ``--margin`` drops the unclear pairs
    repeat      each pair `copies` times, ``round(probability * copies)`` of them in the judge's order and the others
                swapped: their mean loss is the cross-entropy with the soft label, up to rounding

Threshold is the default: repetition multiplies the time of an epoch, and its validation accuracy cannot exceed the
judge's mean probability.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

SoftLabels = Literal["threshold", "repeat"]

_MAX_PROBABILITY = 1 - 1e-6
"""The largest probability. It keeps rewards finite if all votes of a judge agree."""


def hard_pairs(
    chosen: str, rejected: str, probability: float | None, *, how: SoftLabels, copies: int
) -> Iterator[tuple[str, str]]:
    """Yield (better, worse) texts for a pair.

    Args:
        chosen: The preferred text.
        rejected: The other text.
        probability: The probability that `chosen` is better, at least 0.5. None counts as 1.
        how: The method, see the module.
        copies: The number of copies of each pair for "repeat".
    """
    if how == "threshold":
        yield chosen, rejected
        return
    as_preferred = copies if probability is None else math.floor(Fraction(str(probability)) * copies + Fraction(1, 2))
    for number in range(copies):
        yield (chosen, rejected) if number < as_preferred else (rejected, chosen)


def rewards(probability: float | None) -> tuple[float | None, float | None]:
    """Rewards (chosen, rejected) whose difference is the log-odds. Both are None without a probability."""
    if probability is None:
        return None, None
    p = min(probability, _MAX_PROBABILITY)
    return math.log(p) - math.log1p(-p), 0.0
