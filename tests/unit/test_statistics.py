# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Paired differences, McNemar's test and Holm's correction, against scipy's and published figures."""

import math
import random

import numpy as np
import pytest
from scipy import stats

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.paired import holm, mcnemar, paired_difference
from nemo_aligner_cai.evaluation.statistics.rates import Rate


def scores(seed: int, prompts: int, samples: int = 1) -> dict[str, list[float]]:
    generator = random.Random(seed)
    return {str(number): [float(generator.random() < 0.4) for _ in range(samples)] for number in range(prompts)}


def test_a_paired_difference_is_scipys_paired_t_test() -> None:
    first, second = scores(1, 60), scores(2, 60)
    found = paired_difference(first, second)
    columns = [[values[0] for values in one.values()] for one in (first, second)]
    expected = stats.ttest_rel(*columns)
    interval = expected.confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(columns[0]) - np.mean(columns[1]))
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.prompts == 60


def test_samples_of_one_prompt_add_no_independent_values() -> None:
    first, second = scores(3, 40), scores(4, 40)
    once = paired_difference(first, second)
    repeated = paired_difference({p: v * 9 for p, v in first.items()}, {p: v * 9 for p, v in second.items()})
    assert repeated == once


def test_prompts_of_one_model_only_are_counted_and_not_used() -> None:
    first, second = scores(5, 30), scores(6, 30)
    common = paired_difference(first, second)
    found = paired_difference({**first, "more": [1.0], "even more": [0.0]}, {**second, "other": [1.0], "none": []})
    assert (found.only_first, found.only_baseline) == (2, 1)
    assert (found.to_dict()["only_first"], found.to_dict()["only_baseline"]) == (2, 1)
    assert (found.value, found.low, found.high, found.p) == (common.value, common.low, common.high, common.p)


def test_the_detectable_difference_is_found_with_the_stated_power() -> None:
    first, second = scores(7, 200), scores(8, 200)
    detectable = paired_difference(first, second).detectable
    assert detectable is not None
    # An independent computation of the power, by the noncentral t distribution.
    error = stats.sem([first[prompt][0] - second[prompt][0] for prompt in first])
    power = 1 - stats.nct.cdf(stats.t.ppf(0.975, 199), 199, detectable / error)
    assert power == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize("n", [2, 10, 450])
def test_equal_results_on_every_prompt_still_have_an_interval(n: int) -> None:
    same = {str(number): [0.0] for number in range(n)}
    found = paired_difference(same, same)
    assert found.value == 0 and found.p == 1.0
    assert found.low is not None and found.high is not None
    assert found.high == -found.low == pytest.approx(Rate.of_share(0.0, n).high)
    # No difference is larger than 1.
    most = paired_difference({prompt: [1.0] for prompt in same}, same)
    assert (most.value, most.low, most.high) == (1.0, pytest.approx(1 - found.high), 1.0)
    least = paired_difference(same, {prompt: [1.0] for prompt in same})
    assert (least.value, least.low, least.high) == (-1.0, -1.0, pytest.approx(found.high - 1))


def test_one_prompt_has_a_value_and_no_interval() -> None:
    found = paired_difference({"a": [1.0]}, {"a": [0.0]})
    assert (found.value, found.low, found.high, found.p, found.detectable) == (1.0, None, None, None, None)


def test_models_without_a_common_prompt_and_scores_that_are_no_shares_are_errors() -> None:
    with pytest.raises(CaiError, match="2 and 1 prompts"):
        paired_difference({"a": [1.0], "b": [0.0]}, {"c": [1.0]})
    for wrong in (1.5, -0.1, math.nan):
        with pytest.raises(CaiError, match=r"\[0, 1\]"):
            paired_difference({"a": [wrong]}, {"a": [0.0]})


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (5, 5), (2, 9), (40, 21)])
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int) -> None:
    outcomes = [(True, False)] * only_first + [(False, True)] * only_second + [(True, True)] * 7 + [(False, False)] * 3
    found = mcnemar(outcomes)
    assert (found.only_first, found.only_second) == (only_first, only_second)
    n = only_first + only_second
    expected = stats.binomtest(only_first, n, 0.5).pvalue if n else 1.0
    assert found.p == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # Holm (1979): the k-th smallest of m is multiplied by m - k + 1, and none may be below its predecessor.
    adjusted = holm({"c": 0.03, "d": 0.01, "a": 0.9, "b": 0.02})
    assert list(adjusted) == ["c", "d", "a", "b"]
    assert adjusted == pytest.approx({"d": 0.04, "b": 0.06, "c": 0.06, "a": 0.9})
    assert holm({}) == {} and holm({"only": 0.04}) == {"only": 0.04}
    assert holm({"a": 0.6, "b": 0.8}) == {"a": 1.0, "b": 1.0}
