# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration against scikit-learn, and by hand."""

import math
import random

import pytest

pytest.importorskip("sklearn", reason="scikit-learn comes with the extra dev")
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.calibration import calibration


def forecasts(seed: int, n: int) -> list[tuple[float, bool]]:
    generator = random.Random(seed)
    return [(p := generator.random(), generator.random() < p**2) for _ in range(n)]


@pytest.mark.parametrize("n", [100, 237])
def test_scikit_learn_agrees(n: int) -> None:
    given = forecasts(1, n)
    found = calibration(given)
    probabilities, outcomes = zip(*given, strict=True)
    assert found.n == n and found.predicted == pytest.approx(sum(probabilities) / n)
    assert found.observed == pytest.approx(sum(outcomes) / n)
    assert found.brier == pytest.approx(brier_score_loss(outcomes, probabilities))
    assert found.log_loss == pytest.approx(log_loss(outcomes, probabilities))
    assert sum(part.observed.n for part in found.bins) == n
    assert max(part.observed.n for part in found.bins) - min(part.observed.n for part in found.bins) <= 1
    if n == 100:
        observed, predicted = calibration_curve(outcomes, probabilities, n_bins=10, strategy="quantile")
        assert [part.predicted for part in found.bins] == pytest.approx(list(predicted))
        assert [part.observed.value for part in found.bins] == pytest.approx(list(observed))


def test_the_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    found = calibration([(0.2, False), (0.3, False), (0.8, True), (0.9, False)], bins=2)
    assert [part.predicted for part in found.bins] == pytest.approx([0.25, 0.85])
    assert found.ece == pytest.approx((2 * 0.25 + 2 * 0.35) / 4)


def test_calibrated_forecasts_have_a_small_error_and_others_a_large_one() -> None:
    generator = random.Random(2)
    draws = [generator.random() for _ in range(20_000)]
    good = calibration((p, generator.random() < p) for p in draws)
    bad = calibration((1 - p, generator.random() < p) for p in draws)
    assert good.ece < 0.015 < 0.4 < bad.ece


def test_equal_probabilities_share_a_bin_in_any_order() -> None:
    given = [(0.5, n % 2 == 0) for n in range(40)] + [(0.9, True)] * 10
    shuffled = random.Random(3).sample(given, len(given))
    assert calibration(given) == calibration(shuffled)
    assert [part.observed.n for part in calibration(given).bins] == [40, 10]


def test_a_wrong_certainty_costs_much_and_not_everything() -> None:
    assert calibration([(1.0, False)]).log_loss == calibration([(0.0, True)]).log_loss == -math.log(1e-12)
    assert calibration([(1.0, True)]).log_loss == 0.0


def test_no_forecast_and_no_probability_are_errors() -> None:
    with pytest.raises(CaiError, match="0"):
        calibration([])
    for wrong in (1.2, -0.1):
        with pytest.raises(CaiError, match=r"\[0, 1\]"):
            calibration([(0.5, True), (wrong, True)])
