# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Results of models compared in pairs: win rates and Elo ratings.

Input:  PairResult(prompt="9f86...", first="rl-cai", second="sl-cai", score=0.5), one for each presentation order
Output: {("rl-cai", "sl-cai"): Rate(0.64, ...)}, {"rl-cai": 0.64, "sl-cai": 0.36}, {"rl-cai": 1012.3, ...}
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, Rate

ELO_START = 1000.0
ELO_STEP = 4.0
"""The largest change of a rating by one comparison; small, since models do not improve between comparisons."""


@dataclass(frozen=True)
class PairResult:
    """One comparison of two models on one prompt.

    Attributes:
        prompt: the prompt's id; results with the same id are not independent.
        first: the name of one model.
        second: the name of the other.
        score: 1 if the first model wins, 0 if the second does, 0.5 for a tie; or the judge's probability.

    Raises:
        CaiError: a model is compared with itself, or the score is not in [0, 1].
    """

    prompt: str
    first: str
    second: str
    score: float

    def __post_init__(self) -> None:
        if self.first == self.second:
            raise CaiError(f"prompt {self.prompt}: the model {self.first} is compared with itself")
        if not 0.0 <= self.score <= 1.0:
            raise CaiError(f"prompt {self.prompt}: the score of a comparison must be in [0, 1], it is {self.score}")


def models_of(results: Iterable[PairResult]) -> list[str]:
    """Return the names of the models, in the order of their first comparison."""
    return list(dict.fromkeys(name for result in results for name in (result.first, result.second)))


def win_rates(results: Iterable[PairResult]) -> dict[tuple[str, str], Rate]:
    """Return the rate at which one model beats another, for both orders of each compared pair.

    A tie counts 1/2. The interval is that of prompts, not of comparisons.
    """
    by_prompt: defaultdict[tuple[str, str], defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        by_prompt[result.first, result.second][result.prompt].append(result.score)
        by_prompt[result.second, result.first][result.prompt].append(1.0 - result.score)
    rates: dict[tuple[str, str], Rate] = {}
    for pair, prompts in by_prompt.items():
        mean = ClusteredMean()
        for scores in prompts.values():
            mean.add(scores)
        rate = mean.rate
        assert rate is not None  # every pair has a result
        rates[pair] = rate
    return rates


def average_win_rates(rates: dict[tuple[str, str], Rate]) -> dict[str, float]:
    """Return for each model the mean of its win rates, in which every opponent has the same weight."""
    by_model: defaultdict[str, list[float]] = defaultdict(list)
    for (model, _), rate in rates.items():
        by_model[model].append(rate.value)
    return {model: sum(values) / len(values) for model, values in by_model.items()}


def elo(results: Sequence[PairResult]) -> dict[str, float]:
    """Return Elo ratings: 400 points are odds of 10 to 1 (Elo, The Rating of Chessplayers, 1978).

    They depend on the order of the results and have no interval: use them to compare with other leaderboards, and
    `bradley_terry` for conclusions.
    """
    ratings = dict.fromkeys(models_of(results), ELO_START)
    for result in results:
        expected = 1 / (1 + 10 ** ((ratings[result.second] - ratings[result.first]) / 400))
        change = ELO_STEP * (result.score - expected)
        ratings[result.first] += change
        ratings[result.second] -= change
    return ratings
