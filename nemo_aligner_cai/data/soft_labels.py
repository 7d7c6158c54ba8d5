# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a judge's probability becomes where it is used.

The raw file keeps it. Formats with rewards get the log-odds, by which the Bradley-Terry model says the same:
``sigmoid(chosen_reward - rejected_reward) == probability``. NeMo-Aligner's Bradley-Terry reward model takes hard
pairs, for which there are two ways:

    threshold   each pair once, as the judge prefers it; ``--margin`` decides which are clear enough to be pairs
    repeat      each pair `copies` times, of which ``round(probability * copies)`` as the judge prefers it and the
                others exchanged: the loss over them is the cross-entropy with the soft label, up to the rounding

Threshold is the default: repetition multiplies the time that an epoch takes, and its validation accuracy cannot
exceed the judge's mean probability.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal

SoftLabels = Literal["threshold", "repeat"]

_SUREST = 1 - 1e-6
"""Rewards stay finite: a judge whose votes all agree is not infinitely sure."""


def hard_pairs(
    chosen: str, rejected: str, probability: float | None, *, how: SoftLabels, copies: int
) -> Iterator[tuple[str, str]]:
    """The (better, worse) texts that a pair becomes.

    Args:
        chosen: the preferred text.
        rejected: the other.
        probability: that `chosen` is better, at least 0.5; None is as good as 1.
        how: see the module.
        copies: of each pair, with "repeat".
    """
    if how == "threshold":
        yield chosen, rejected
        return
    as_preferred = copies if probability is None else math.floor(Fraction(str(probability)) * copies + Fraction(1, 2))
    for number in range(copies):
        yield (chosen, rejected) if number < as_preferred else (rejected, chosen)


def rewards(probability: float | None) -> tuple[float | None, float | None]:
    """Rewards (chosen, rejected) whose difference means the probability; None where there is none."""
    if probability is None:
        return None, None
    p = min(probability, _SUREST)
    return math.log(p) - math.log1p(-p), 0.0
