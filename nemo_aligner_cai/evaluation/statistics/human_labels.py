# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Cohen's kappa, the errors of a grader by human labels, and rates corrected by these errors.

Input:  {"How do I ...": [("refusal", "refusal"), ("compliance", "refusal")], ...}: by prompt, the grader's label and
        the human's of each reply
Output: Kappa(value=0.70, low=0.65, high=0.75, agreement=Rate(0.84, ...)); GraderErrors(sensitivity, specificity);
        the corrected rate of a class: CorrectedRate(value=0.12, low=0.08, high=0.16)
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.rates import Z_95, ClusteredMean, Rate

_Name = TypeVar("_Name")


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa (Educational and Psychological Measurement 20, 1960) of two labels of the same replies.

    Attributes:
        value: 1 for equal labels, 0 for agreement by chance; None if both use one and the same label only.
        low: lower end of the 95 % interval (Fleiss, Cohen and Everitt, Psychological Bulletin 72, 1969); None if
            `value` is.
        high: upper end.
        agreement: the share of equal labels.
    """

    value: float | None
    low: float | None
    high: float | None
    agreement: Rate


def kappa(labels: Mapping[str, Sequence[tuple[str, str]]]) -> Kappa:
    """Return the agreement of two labels, each from any set of classes.

    Args:
        labels: prompt -> the two labels of each of its replies. Only prompts are independent: the variance is that of
            Fleiss, Cohen and Everitt, with the terms of a prompt's replies added before they are squared.

    Raises:
        CaiError: there are no labels.
    """
    pairs = [pair for replies in labels.values() for pair in replies]
    agreement = _rate({prompt: [first == second for first, second in replies] for prompt, replies in labels.items()})
    if agreement is None:
        raise CaiError("there are no human labels to compare with")
    of_first, of_second = _shares(first for first, _ in pairs), _shares(second for _, second in pairs)
    expected = math.fsum(p * of_second.get(name, 0.0) for name, p in of_first.items())
    value = beyond_chance(agreement.value, expected)
    if value is None:
        return Kappa(None, None, None, agreement)

    def influence(first: str, second: str) -> float:
        chance = of_second.get(first, 0.0) + of_first.get(second, 0.0) - 2 * expected
        return ((first == second) - agreement.value - (1 - value) * chance) / (1 - expected)

    squares = math.fsum(math.fsum(influence(*pair) for pair in replies) ** 2 for replies in labels.values())
    half = Z_95 * math.sqrt(squares) / len(pairs)
    return Kappa(value, max(-1.0, value - half), min(1.0, value + half), agreement)


def _rate(decisions: Mapping[str, Sequence[bool]]) -> Rate | None:
    """The share of True, with an interval clustered by prompt; None without a decision."""
    mean = ClusteredMean()
    for values in decisions.values():
        mean.add(values)
    return mean.rate


def _shares(names: Iterable[_Name]) -> dict[_Name, float]:
    counts = Counter(names)
    return {name: count / counts.total() for name, count in counts.items()}


def beyond_chance(observed: float, expected: float) -> float | None:
    """Return the agreement beyond that expected by chance, as a share of the possible; None if 1 is expected."""
    return None if expected == 1.0 else (observed - expected) / (1 - expected)


@dataclass(frozen=True)
class GraderErrors:
    """Agreement of a yes/no grader with human labels.

    Attributes:
        sensitivity: the share of "yes" among replies that humans label "yes".
        specificity: the share of "no" among replies that humans label "no".
    """

    sensitivity: Rate
    specificity: Rate


def grader_errors(labels: Mapping[str, Sequence[tuple[bool, bool]]]) -> GraderErrors | None:
    """Return the grader's sensitivity and specificity.

    Args:
        labels: prompt -> the grader's label and the human's of each of its replies.

    Returns:
        None if humans labeled no reply "yes", or none "no".
    """

    def right(kind: bool) -> Rate | None:
        return _rate(
            {prompt: [one is kind for one, human in pairs if human is kind] for prompt, pairs in labels.items()}
        )

    sensitivity, specificity = right(True), right(False)
    return GraderErrors(sensitivity, specificity) if sensitivity and specificity else None


@dataclass(frozen=True)
class CorrectedRate:
    """A rate corrected for the errors of its grader, in [0, 1].

    Attributes:
        value: the estimate of Rogan and Gladen (American Journal of Epidemiology 107, 1978).
        low: lower end of the 95 % interval, which includes the uncertainty of the grader's errors.
        high: upper end.
    """

    value: float
    low: float
    high: float


def corrected_rate(rate: Rate, errors: GraderErrors) -> CorrectedRate | None:
    """Return the rate that humans would have found, given the grader's.

    None if the grader is not better than chance, or if the rate contradicts the errors: with a specificity of 0.9, a
    grader says "yes" to about 10 % of the replies at least. Then the human labels are not of such replies.

    The interval is that of Lang and Reiczigel (Preventive Veterinary Medicine 113, 2014), which keeps its coverage
    with few human labels and near 0 and 1. The human labels must be of replies like those of the rate.
    """
    youden = errors.sensitivity.value + errors.specificity.value - 1
    if youden <= 0:
        return None
    value = (rate.value + errors.specificity.value - 1) / youden
    z2 = Z_95**2
    n = rate.n + z2
    observed = (rate.n * rate.value + z2 / 2) / n
    (sensitive, positives), (specific, negatives) = (
        ((one.n * one.value + 1) / (one.n + 2), one.n + 2) for one in (errors.sensitivity, errors.specificity)
    )
    slope = sensitive + specific - 1
    center = (observed + specific - 1) / slope
    false_no = sensitive * (1 - sensitive) / positives
    false_yes = specific * (1 - specific) / negatives
    shift = 2 * z2 * (center * false_no - (1 - center) * false_yes)
    variance = observed * (1 - observed) / n + center**2 * false_no + (1 - center) ** 2 * false_yes
    half = Z_95 * math.sqrt(variance) / slope
    low, high = center + shift - half, center + shift + half
    if high < 0 or low > 1:
        return None
    value = _share(value)
    return CorrectedRate(value, min(_share(low), value), max(_share(high), value))


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))
