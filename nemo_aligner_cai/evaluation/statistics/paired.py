# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Paired comparisons of two models on the same prompts.

Input:  {"prompt 1": [0.0, 1.0], "prompt 2": [1.0]} for each model: the scores of its samples, in [0, 1]
Output: Difference(value=-0.12, low=-0.19, high=-0.05, p=0.001, detectable=0.10, prompts=400, ...)

Samples of one prompt are correlated, only prompts are independent: everything here counts prompts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.distributions import binomial_at_most, t_quantile, t_two_sided
from nemo_aligner_cai.evaluation.statistics.rates import Rate

POWER = 0.8
"""The probability with which a run must find a difference that it is said to be able to see."""

Scores = Mapping[str, Sequence[float]]
"""Prompt id -> the scores of its samples, in [0, 1]. A prompt without scores counts as missing."""


@dataclass(frozen=True)
class Difference:
    """The mean difference of two models over the prompts that both have; all shares, not percentages.

    Attributes:
        value: the mean over prompts of the difference of their mean scores.
        low: lower end of the 95 % interval; None with fewer than two prompts.
        high: upper end.
        p: two-sided p-value of no difference; None with fewer than two prompts.
        detectable: the smallest true difference that a run of this size and spread finds with a probability of 80 %,
            at the 5 % level; None with fewer than two prompts.
        prompts: the number of prompts that both models have.
        only_first: prompts of the first model that the baseline lacks; they are not used.
        only_baseline: prompts of the baseline that the first model lacks; they are not used.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    detectable: float | None
    prompts: int
    only_first: int
    only_baseline: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def paired_difference(scores: Scores, baseline: Scores) -> Difference:
    """Return the mean difference `scores` - `baseline`, with a t interval over prompts.

    Raises:
        CaiError: the models share no prompt, or a score is not in [0, 1].
    """
    first, second = _means(scores), _means(baseline)
    common = [prompt for prompt in first if prompt in second]
    if not common:
        raise CaiError(
            f"a paired difference needs prompts that both models have: {len(first)} and {len(second)} prompts have "
            "scores, and none is in both"
        )
    differences = [first[prompt] - second[prompt] for prompt in common]
    n = len(differences)
    value = math.fsum(differences) / n
    low = high = p = detectable = None
    if n > 1:
        quantile = t_quantile(0.975, n - 1)
        error = _standard_error(differences, value, quantile)
        low, high = max(-1.0, value - quantile * error), min(1.0, value + quantile * error)
        p = t_two_sided(value / error, n - 1)
        detectable = (quantile + t_quantile(POWER, n - 1)) * error
    return Difference(value, low, high, p, detectable, n, len(first) - n, len(second) - n)


def _means(scores: Scores) -> dict[str, float]:
    if any(not 0.0 <= score <= 1.0 for values in scores.values() for score in values):
        raise CaiError("the scores of a paired difference must be in [0, 1]")
    return {prompt: math.fsum(values) / len(values) for prompt, values in scores.items() if values}


def _standard_error(differences: Sequence[float], mean: float, quantile: float) -> float:
    n = len(differences)
    variance = math.fsum((one - mean) ** 2 for one in differences) / (n - 1) / n
    if variance > 0.0:
        return math.sqrt(variance)
    # All prompts have the same difference, so the spread of the sample says nothing. The share of prompts with
    # another one may still be as large as the Wilson interval of 0 out of n allows, each by at most 1.
    return Rate.of_share(0.0, n).high / quantile


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test (Psychometrika 12, 1947) of yes/no outcomes of two models on the same prompts.

    Attributes:
        only_first: prompts with "yes" of the first model only.
        only_second: prompts with "yes" of the second model only.
        p: two-sided p-value of equal probabilities of "yes".
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(outcomes: Iterable[tuple[bool, bool]]) -> McNemar:
    """Return the exact test for one (first, second) outcome per prompt."""
    only_first = only_second = 0
    for first, second in outcomes:
        only_first += first and not second
        only_second += second and not first
    n = only_first + only_second
    p = min(1.0, 2 * binomial_at_most(min(only_first, only_second), n, 0.5))
    return McNemar(only_first, only_second, p)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    The probability of any false finding among those with an adjusted value of at most 0.05 is at most 5 %.
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
