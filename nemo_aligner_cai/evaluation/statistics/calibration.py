# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of probabilities: of soft labels, of reward models and of judges.

Input:  [(0.93, True), (0.61, False), ...]: the probability given to an event, and whether it happened
Output: Calibration(n=350, ece=0.31, brier=0.33, log_loss=2.26, bins=[Bin(0.70, Rate(0.58, ...)), ...], ...)
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.rates import Rate

Forecast = tuple[float, bool]
"""A probability, and True if the event happened."""
BINS = 10
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Bin:
    """Forecasts of similar probability.

    Attributes:
        predicted: their mean probability.
        observed: the share of the events that happened, with its interval.
    """

    predicted: float
    observed: Rate


@dataclass(frozen=True)
class Calibration:
    """Agreement of probabilities with what happened.

    Attributes:
        n: number of forecasts.
        predicted: mean probability.
        observed: share of the events that happened.
        ece: expected calibration error: the mean over forecasts of the distance between `predicted` and `observed` of
            their bin; 0 is best.
        brier: mean squared distance between probability and outcome (Brier, Monthly Weather Review 78, 1950); 0 is
            best, and always forecasting 0.5 gives 0.25.
        log_loss: mean negative log-likelihood in nats; probabilities are limited to 1e-12 from 0 and 1, so that one
            wrong certainty counts 27.6 and not infinity.
        bins: of equal numbers of forecasts (equal mass), by increasing probability. Equal probabilities share a bin.
    """

    n: int
    predicted: float
    observed: float
    ece: float
    brier: float
    log_loss: float
    bins: tuple[Bin, ...]


def calibration(forecasts: Iterable[Forecast], *, bins: int = BINS) -> Calibration:
    """Return how well probabilities agree with what happened.

    Raises:
        CaiError: there are no forecasts, or a probability is not in [0, 1].
    """
    ordered = sorted(forecasts)
    if not ordered:
        raise CaiError("calibration needs at least one probability, there are 0")
    if not 0.0 <= ordered[0][0] <= ordered[-1][0] <= 1.0:
        raise CaiError(f"probabilities must be in [0, 1]; they are from {ordered[0][0]} to {ordered[-1][0]}")
    n = len(ordered)
    parts = [_bin(part) for part in _equal_mass(ordered, bins)]
    return Calibration(
        n,
        math.fsum(p for p, _ in ordered) / n,
        sum(happened for _, happened in ordered) / n,
        math.fsum(abs(part.predicted - part.observed.value) * part.observed.n for part in parts) / n,
        math.fsum((p - happened) ** 2 for p, happened in ordered) / n,
        math.fsum(-math.log(max(_LEAST_PROBABILITY, p if happened else 1 - p)) for p, happened in ordered) / n,
        tuple(parts),
    )


def _equal_mass(ordered: Sequence[Forecast], bins: int) -> list[list[Forecast]]:
    parts: list[list[Forecast]] = [[]]
    for index, forecast in enumerate(ordered):
        is_full = index * bins >= len(parts) * len(ordered)
        if is_full and parts[-1][-1][0] < forecast[0]:
            parts.append([])
        parts[-1].append(forecast)
    return parts


def _bin(part: Sequence[Forecast]) -> Bin:
    return Bin(math.fsum(p for p, _ in part) / len(part), Rate.of(happened for _, happened in part))
