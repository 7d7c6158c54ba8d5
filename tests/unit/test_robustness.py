# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Figures over runs that are nested in base models."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from benchmarks.robustness import BARS, nested
from nemo_aligner_cai.evaluation.statistics.rates import Rate


def test_components_of_variance_are_those_of_an_analysis_of_variance() -> None:
    groups = [[1.0, 2.0, 4.0], [3.0, 5.0, 5.0], [9.0, 7.0, 8.0]]
    found = nested(groups)
    within = sum(stats.tvar(group) for group in groups) / 3
    between = 3 * stats.tvar([stats.tmean(group) for group in groups])
    # F is the ratio of the mean squares.
    assert stats.f_oneway(*groups).statistic == pytest.approx(between / within)
    assert found.within == pytest.approx(within**0.5)
    assert found.between == pytest.approx(((between - within) / 3) ** 0.5)
    means = [stats.tmean(group) for group in groups]
    low, high = stats.t.interval(0.95, 2, loc=stats.tmean(means), scale=stats.sem(means))
    assert (found.mean, found.low, found.high) == pytest.approx((44 / 9, low, high))
    assert (found.least, found.greatest) == (1.0, 9.0)


def test_the_interval_covers_the_mean_in_95_of_100_studies() -> None:
    rng, covered = random.Random(1), 0
    for _ in range(2000):
        bases = [rng.gauss(0.0, 2.0) for _ in range(3)]
        found = nested([[base + rng.gauss(0.0, 1.0) for _ in range(3)] for base in bases])
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.0 <= found.high
    assert Rate.of_share(covered / 2000, 2000).low <= 0.95 <= Rate.of_share(covered / 2000, 2000).high


def test_one_run_has_no_spread() -> None:
    found = nested([[0.25]])
    assert found.mean == found.least == found.greatest == 0.25
    assert (found.low, found.high, found.between, found.within) == (None, None, None, None)


def _stages(harm: float, right: float, over: float) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    rates = {
        "harmful_compliance": harm,
        "right_refusal": right,
        "flawed_refusal": 0.02,
        "evasion": 0.01,
        "helpfulness": 0.97,
        "over_refusal": over,
    }
    decodings = {
        decoding: {name: {"value": value} for name, value in rates.items()} for decoding in ("sampled", "greedy")
    }
    return dict.fromkeys(("helpful_only", "sl_cai", "rl_cai"), decodings)


@pytest.mark.parametrize(
    ("runs", "missed"),
    [
        ([_stages(0.04, 0.9, 0.01)] * 2, {"helpful-only: complies with harm"}),
        (
            [_stages(0.0, 0.1, 0.05), _stages(0.12, 0.1, 0.05)],
            {
                "helpful-only: complies with harm",
                "RL-CAI: complies with harm",
                "RL-CAI: right reasons, of its refusals",
                "RL-CAI: over-refuses",
            },
        ),
    ],
)
def test_bars_are_for_the_mean_and_for_any_run(runs: list[dict[str, object]], missed: set[str]) -> None:
    assert {bar.title for bar in BARS if not bar.holds(nested([[bar.value(run) for run in runs]]))} == missed  # pyright: ignore[reportArgumentType]
