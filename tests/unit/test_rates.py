# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rates against published Wilson intervals, and means that are clustered by prompt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, Rate, rate_dict


def clustered(prompts: list[list[float]]) -> ClusteredMean:
    figures = ClusteredMean()
    for values in prompts:
        figures.add(values)
    return figures


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    # Newcombe 1998 gives 81/263 -> 0.2553 to 0.3662; the others follow from the formula by hand.
    rate = Rate.of([True] * hits + [False] * (n - hits))
    assert rate.value == hits / n
    assert rate.n == n
    assert (rate.low, rate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("n", [1, 7, 24, 320])
def test_the_value_lies_in_its_interval(n: int) -> None:
    for hits in range(n + 1):
        rate = Rate.of([True] * hits + [False] * (n - hits))
        assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_a_rate_of_nothing_is_an_error() -> None:
    with pytest.raises(CaiError, match="0"):
        Rate.of([])


def test_a_rate_is_shown_in_percent_and_stored_as_shares() -> None:
    rate = Rate.of([True] * 8 + [False] * 2)
    assert str(rate) == "80.0 [49.0, 94.3]"
    assert rate_dict(rate) == {"value": rate.value, "low": rate.low, "high": rate.high, "n": 10}
    assert rate_dict(None) is None


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(1, 9))
def test_repeating_each_prompts_value_makes_a_rate_no_surer(hits: list[bool], times: int) -> None:
    figures = clustered([[float(hit)] * times for hit in hits])
    plain = Rate.of(hits)
    assert figures.rate is not None and (figures.count, figures.prompts) == (len(hits) * times, len(hits))
    assert (figures.rate.low, figures.rate.high) == pytest.approx((plain.low, plain.high))


def test_a_prompt_counts_as_often_as_it_has_values() -> None:
    # By hand: the mean is 4/6, so the totals 3, 0 and 1 of the prompts deviate from 3, 1 and 2 means by 1, -2/3, -1/3.
    figures = clustered([[1.0, 1.0, 1.0], [0.0], [1.0, 0.0]])
    assert (figures.mean, figures.variance) == (pytest.approx(4 / 6), pytest.approx((1 + 4 / 9 + 1 / 9) / 6**2))
    # A share of 2/3 of n independent values has the variance 2/9 / n, which is this one for n = 36/7.
    effective = Rate.of_share(4 / 6, 36 / 7)
    assert figures.rate is not None and (figures.rate.value, figures.rate.n) == (pytest.approx(4 / 6), 5)
    assert (figures.rate.low, figures.rate.high) == pytest.approx((effective.low, effective.high))


def test_opposite_values_within_prompts_do_not_make_more_values_than_there_are() -> None:
    figures = clustered([[1.0, 0.0]] * 3)
    assert figures.variance == 0.0 and figures.rate == Rate.of_share(0.5, 6)


def test_a_mean_has_the_interval_of_independent_prompts() -> None:
    figures = clustered([[1.0], [2.0], [3.0], [6.0]])
    assert figures.mean == 3.0 and figures.interval is not None
    half = 1.959964 * math.sqrt((4 + 1 + 0 + 9) / 16)
    assert figures.interval == pytest.approx((3 - half, 3 + half), abs=1e-5)
    two, one, nothing = clustered([[0.0], [1.0]]), clustered([[0.0, 1.0]]), clustered([[]])
    assert two.interval is not None and one.interval is None
    assert nothing.mean is nothing.rate is nothing.interval is None and nothing.variance == 0.0
