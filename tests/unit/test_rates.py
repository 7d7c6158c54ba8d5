# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rates against published Wilson intervals."""

from __future__ import annotations

import pytest

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.rates import Rate


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
