# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Graders against human labels: kappa by scikit-learn and published figures, coverage of the corrected rate."""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

import pytest

pytest.importorskip("sklearn", reason="scikit-learn comes with the extra dev")
from sklearn.metrics import cohen_kappa_score

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.human_labels import (
    GraderErrors,
    corrected_rate,
    grader_errors,
    kappa,
)
from nemo_aligner_cai.evaluation.statistics.rates import Z_95, Rate

Pair = TypeVar("Pair")
CLASSES = ("compliance", "refusal", "partial")


def labels(seed: int, n: int, agreement: float) -> list[tuple[str, str]]:
    generator = random.Random(seed)
    first = [generator.choices(CLASSES, (6, 3, 1))[0] for _ in range(n)]
    return [(one, one if generator.random() < agreement else generator.choice(CLASSES)) for one in first]


def alone(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Each pair as the only reply to a prompt of its own."""
    return {str(number): [pair] for number, pair in enumerate(pairs)}


@pytest.mark.parametrize("agreement", [0.0, 0.5, 0.9])
def test_scikit_learn_agrees_on_kappa(agreement: float) -> None:
    given = labels(1, 300, agreement)
    found = kappa(alone(given))
    assert found.value == pytest.approx(cohen_kappa_score(*zip(*given, strict=True)))
    assert found.agreement.value == pytest.approx(sum(a == b for a, b in given) / 300)


def test_the_published_interval_of_kappa() -> None:
    # Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (3rd edition), table 18.1: kappa 0.676 with
    # a standard error of 0.088.
    table = {("p", "p"): 75, ("p", "n"): 1, ("p", "o"): 4, ("n", "p"): 5, ("n", "n"): 4, ("n", "o"): 1}
    table |= {("o", "o"): 10}
    found = kappa(alone([pair for pair, count in table.items() for _ in range(count)]))
    assert found.value == pytest.approx(0.676, abs=5e-4)
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(0.088, abs=5e-4)


def test_kappa_of_one_label_is_unknown_and_of_equal_labels_one() -> None:
    unknown = kappa(alone([("a", "a")] * 9))
    assert unknown.value is unknown.low is unknown.high is None and unknown.agreement.value == 1.0
    found = kappa(alone([("a", "a"), ("b", "b")] * 20))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    with pytest.raises(CaiError, match="no human labels"):
        kappa({})


def test_kappa_is_the_same_from_both_sides_also_with_a_class_that_one_of_them_uses() -> None:
    given = [("a", "a")] * 5 + [("b", "b")] * 4 + [("b", "c")] * 3 + [("d", "a")] * 2
    found, turned = kappa(alone(given)), kappa(alone([(second, first) for first, second in given]))
    assert found.value == pytest.approx(cohen_kappa_score(*zip(*given, strict=True)))
    assert (found.value, found.low, found.high) == pytest.approx((turned.value, turned.low, turned.high))


def test_the_interval_of_kappa_ends_at_one_and_minus_one() -> None:
    above = kappa(alone([("a", "a"), ("b", "b")] * 5 + [("a", "b")]))
    below = kappa(alone([("a", "b"), ("b", "a"), ("a", "a")]))
    assert above.value is not None and above.value < above.high == 1.0
    assert below.value is not None and below.value > below.low == -1.0


def test_the_replies_to_one_prompt_are_not_independent() -> None:
    generator = random.Random(7)
    given = {str(n): labels(n, generator.choice((1, 2, 5)), generator.choice((0.1, 0.9))) for n in range(200)}
    found, all_values = kappa(given), dict[str, float]()
    for prompt in given:
        rest = kappa({other: pairs for other, pairs in given.items() if other != prompt}).value
        assert rest is not None
        all_values[prompt] = rest
    # The jackknife of prompts is another estimate of the same error.
    mean = sum(all_values.values()) / 200
    jackknife = math.sqrt(199 / 200 * sum((one - mean) ** 2 for one in all_values.values()))
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 / Z_95 == pytest.approx(jackknife, rel=0.02)


def test_a_label_five_times_says_no_more_than_once() -> None:
    once = {str(number): [pair] for number, pair in enumerate(labels(3, 150, 0.7))}
    five = {prompt: pairs * 5 for prompt, pairs in once.items()}
    assert vars(kappa(five)) | {"agreement": None} == pytest.approx(vars(kappa(once)) | {"agreement": None})
    assert kappa(five).agreement.low == pytest.approx(kappa(once).agreement.low)
    decided = [
        {prompt: [(one == "refusal", other == "refusal") for one, other in pairs] for prompt, pairs in given.items()}
        for given in (five, once)
    ]
    many, few = map(grader_errors, decided)
    assert many is not None and few is not None
    assert many.sensitivity.low == pytest.approx(few.sensitivity.low)
    assert many.specificity.high == pytest.approx(few.specificity.high)


def test_sensitivity_and_specificity() -> None:
    pairs = [(True, True)] * 8 + [(False, True)] * 2 + [(False, False)] * 27 + [(True, False)] * 3
    errors = grader_errors(alone(pairs))
    assert errors is not None
    assert (errors.sensitivity.value, errors.sensitivity.n) == (0.8, 10)
    assert (errors.specificity.value, errors.specificity.n) == (0.9, 30)
    assert grader_errors(alone([(True, True)] * 2)) is None
    assert grader_errors(alone([(True, False)] * 2)) is None


def test_the_corrected_rate_undoes_the_graders_errors() -> None:
    errors = GraderErrors(Rate.of_share(0.8, 1000), Rate.of_share(0.9, 1000))
    # 20 % of the replies are "yes"; the grader finds 0.2 * 0.8 + 0.8 * 0.1 = 24 %.
    found = corrected_rate(Rate.of_share(0.24, 1000), errors)
    assert found is not None and found.value == pytest.approx(0.2)
    assert 0.0 < found.low < 0.2 < found.high < 1.0
    nothing = corrected_rate(Rate.of_share(0.09, 1000), errors)
    assert nothing is not None and nothing.value == nothing.low == 0.0 < nothing.high


def test_the_interval_of_a_grader_whose_errors_are_known_is_that_of_its_rate() -> None:
    known = GraderErrors(Rate.of_share(0.8, 10**12), Rate.of_share(0.9, 10**12))
    found = corrected_rate(Rate.of_share(0.24, 200), known)
    # Agresti and Coull (The American Statistician 52, 1998): z^2 more replies, half of which are "yes".
    n = 200 + Z_95**2
    p = (0.24 * 200 + Z_95**2 / 2) / n
    half = Z_95 * math.sqrt(p * (1 - p) / n)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(((p - half - 0.1) / 0.7, (p + half - 0.1) / 0.7), abs=1e-6)


def test_the_interval_of_an_endless_run_is_that_of_the_graders_errors() -> None:
    rate = Rate.of_share(0.5, 10**12)
    found = corrected_rate(rate, GraderErrors(Rate.of_share(0.8, 38), Rate.of_share(0.9, 10**12)))
    # Lang and Reiczigel by hand: one human "yes" more of either kind makes 31.4 of 40, so the share of "yes" is
    # (0.5 - 0.1) / (0.785 - 0.1); its error is that of 0.785 alone, and it is moved by z^2 of twice that.
    share, variance = 0.4 / 0.685, 0.785 * 0.215 / 40
    center, half = share + 2 * Z_95**2 * share * variance, Z_95 * share * math.sqrt(variance) / 0.685
    assert found is not None and found.value == pytest.approx(0.4 / 0.7)
    assert (found.low, found.high) == pytest.approx((center - half, center + half), abs=1e-6)


@pytest.mark.parametrize("share", [0.15, 0.4, 0.7])
def test_yes_and_no_are_corrected_alike(share: float) -> None:
    sensitivity, specificity = Rate.of_share(0.8, 40), Rate.of_share(0.9, 30)
    yes = corrected_rate(Rate.of_share(share, 200), GraderErrors(sensitivity, specificity))
    no = corrected_rate(Rate.of_share(1 - share, 200), GraderErrors(specificity, sensitivity))
    assert yes is not None and no is not None
    assert (yes.value, yes.low, yes.high) == pytest.approx((1 - no.value, 1 - no.high, 1 - no.low))


def test_a_rate_that_contradicts_the_errors_is_not_corrected() -> None:
    errors = GraderErrors(Rate.of_share(0.8, 1000), Rate.of_share(0.9, 1000))
    assert corrected_rate(Rate.of_share(0.01, 1000), errors) is None
    assert corrected_rate(Rate.of_share(0.95, 1000), errors) is None


def test_a_grader_no_better_than_chance_corrects_nothing() -> None:
    errors = GraderErrors(Rate.of_share(0.3, 50), Rate.of_share(0.7, 50))
    assert corrected_rate(Rate.of_share(0.5, 100), errors) is None


@pytest.mark.parametrize(("prevalence", "human"), [(0.03, 40), (0.3, 40), (0.6, 200)])
def test_the_corrected_rates_interval_covers(prevalence: float, human: int) -> None:
    # 500 simulations: a true coverage of 95 % gives fewer than 460 with a probability of 0.2 %.
    generator = random.Random(f"corrected rate {prevalence} {human}")

    def share(p: float, n: int) -> Rate:
        return Rate.of(generator.random() < p for _ in range(n))

    covered = 0
    for _ in range(500):
        errors = GraderErrors(share(0.85, human), share(0.92, human))
        found = corrected_rate(share(prevalence * 0.85 + (1 - prevalence) * 0.08, 400), errors)
        covered += found is not None and found.low <= prevalence <= found.high
    assert covered >= 460
