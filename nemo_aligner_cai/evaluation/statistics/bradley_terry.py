# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Strengths of models by the Bradley-Terry model (Biometrika 39, 1952), with intervals clustered by prompt.

Input:  PairResult(prompt="9f86...", first="rl-cai", second="sl-cai", score=0.5)
Output: BradleyTerry(strengths={"rl-cai": Strength(0.52, 0.31, 0.73), ...}, zero="sl-cai", prompts=400)

The first model beats the second with probability 1 / (1 + exp(second's strength - first's strength)); a tie is half a
win for each. The estimates maximize the likelihood (Newton's method). Comparisons of one prompt are correlated, so the
covariance is the sandwich estimator with one summand per prompt (Liang and Zeger, Biometrika 73, 1986), and the
intervals are those of Student's t with one degree of freedom less than there are prompts.

A model that never loses, or never wins, has no finite estimate: it gets one bound.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.statistics.distributions import t_quantile
from nemo_aligner_cai.evaluation.statistics.rates import Z_95
from nemo_aligner_cai.evaluation.statistics.win_rates import PairResult, models_of

Floats = NDArray[np.float64]
_MAX_ITERATIONS = 100
_TOLERANCE = 1e-10
"""Of the last step of Newton's method, which converges quadratically: the error is far smaller."""


@dataclass(frozen=True)
class Strength:
    """The strength of one model, in log odds.

    Attributes:
        value: the estimate; None if it is not finite: the model never loses to, or never beats, those with an
            estimate, or is not compared with them. Then there is at most one bound.
        low: lower end of the 95 % interval; None if unknown or unbounded.
        high: upper end; None if unknown or unbounded.
    """

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        low, high = (None if end is None else f"{end:.2f}" for end in (self.low, self.high))
        if self.value is None:
            return f"> {low}" if low is not None else f"< {high}" if high is not None else "-"
        return f"{self.value:.2f}" + (f" [{low}, {high}]" if low is not None else "")


@dataclass(frozen=True)
class BradleyTerry:
    """Strengths of models.

    Attributes:
        strengths: model -> its strength, in the order of the models' first comparisons.
        zero: the model whose strength is 0 by definition; None if the mean of the finite estimates is 0, because there
            is no baseline or its estimate is not finite.
        prompts: the number of prompts on which the finite estimates rest.
    """

    strengths: dict[str, Strength]
    zero: str | None
    prompts: int


def bradley_terry(results: Sequence[PairResult], *, baseline: str | None = None) -> BradleyTerry:
    """Return the strengths of all models.

    Args:
        results: comparisons.
        baseline: the model whose strength is 0.

    Raises:
        CaiError: there are no results, or none of the baseline.
    """
    models = models_of(results)
    if not models:
        raise CaiError("a ranking needs at least one comparison, there are 0")
    if baseline is not None and baseline not in models:
        raise CaiError(f"the baseline {baseline} is in no comparison; the compared models are {', '.join(models)}")
    reaches = _reaches(results, models)
    core = _core(results, models, reaches, baseline)
    members = [models[index] for index in core]
    zero = members[0] if len(members) == 1 else baseline if baseline in members else None
    comparisons = _Comparisons.of([one for one in results if {one.first, one.second} <= set(members)], members)
    finite = _finite_strengths(comparisons, zero)
    strengths = {
        name: finite[name]
        if name in finite
        else _bounds(name, results, finite, wins=bool(reaches[index, core[0]]), loses=bool(reaches[core[0], index]))
        for index, name in enumerate(models)
    }
    return BradleyTerry(strengths, zero, comparisons.prompts)


def _reaches(results: Sequence[PairResult], models: Sequence[str]) -> NDArray[np.bool_]:
    """Return for models i and j whether a chain leads from i to j in which each model has points against the next."""
    index = {name: number for number, name in enumerate(models)}
    reaches = np.eye(len(models), dtype=np.bool_)
    for result in results:
        first, second = index[result.first], index[result.second]
        reaches[first, second] |= result.score > 0
        reaches[second, first] |= result.score < 1
    for _ in range(len(models).bit_length()):
        reaches = reaches @ reaches  # twice as many links
    return reaches


def _core(
    results: Sequence[PairResult], models: Sequence[str], reaches: NDArray[np.bool_], baseline: str | None
) -> list[int]:
    """Return the largest set of models that all reach each other, which is the condition for finite estimates.

    Source: Ford, American Mathematical Monthly 64, 1957. Among sets of the same size, the one with the baseline, then
    the one with the most comparisons, is used.
    """
    together = reaches & reaches.T
    games = Counter(name for result in results for name in (result.first, result.second))
    sets: list[list[int]] = [np.flatnonzero(row).tolist() for row in together]
    return max(
        sets,
        key=lambda one: (len(one), baseline in {models[index] for index in one}, sum(games[models[i]] for i in one)),
    )


@dataclass(frozen=True)
class _Comparisons:
    """Comparisons as arrays with one entry each.

    Attributes:
        models: the names of the models.
        prompts: the number of prompts.
        prompt: the index of the prompt.
        first: the index of the first model.
        second: the index of the second model.
        score: the score of the first model, in [0, 1].
    """

    models: Sequence[str]
    prompts: int
    prompt: NDArray[np.intp]
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    score: Floats

    @classmethod
    def of(cls, results: Sequence[PairResult], models: Sequence[str]) -> "_Comparisons":
        index = {name: number for number, name in enumerate(models)}
        prompts = {name: number for number, name in enumerate(dict.fromkeys(result.prompt for result in results))}
        return cls(
            models,
            len(prompts),
            np.array([prompts[result.prompt] for result in results], dtype=np.intp),
            np.array([index[result.first] for result in results], dtype=np.intp),
            np.array([index[result.second] for result in results], dtype=np.intp),
            np.array([result.score for result in results], dtype=np.float64),
        )

    def expected(self, strength: Floats) -> Floats:
        """Return the expected score of each comparison."""
        return 1 / (1 + np.exp(strength[self.second] - strength[self.first]))

    def by_prompt(self, residual: Floats) -> Floats:
        """Return the derivatives of the log likelihood, a row for each prompt and a column for each model."""
        sums = np.zeros((self.prompts, len(self.models)))
        np.add.at(sums, (self.prompt, self.first), residual)
        np.add.at(sums, (self.prompt, self.second), -residual)
        return sums

    def laplacian(self, weight: Floats) -> Floats:
        """Return the sum over comparisons of weight * d d', where d is 1 at the first and -1 at the second model."""
        sums = np.zeros((len(self.models), len(self.models)))
        np.add.at(sums, (self.first, self.second), -weight)
        sums += sums.T
        sums[np.diag_indices_from(sums)] = -sums.sum(axis=1)
        return sums


def _finite_strengths(comparisons: _Comparisons, zero: str | None) -> dict[str, Strength]:
    """Return the estimates of models that all reach each other, with intervals if there are two prompts or more."""
    strength, covariance = _fit(comparisons)
    contrast = np.eye(len(comparisons.models))
    if zero is not None:
        contrast[:, comparisons.models.index(zero)] -= 1
    values = contrast @ strength
    names = comparisons.models
    if comparisons.prompts < 2:
        return {name: Strength(value, None, None) for name, value in zip(names, values.tolist(), strict=True)}
    errors = np.sqrt((contrast @ covariance @ contrast.T).diagonal().clip(min=0.0))
    half = t_quantile(0.975, comparisons.prompts - 1) * errors
    ends = zip(names, values.tolist(), (values - half).tolist(), (values + half).tolist(), strict=True)
    return {name: Strength(value, low, high) for name, value, low, high in ends}


def _fit(comparisons: _Comparisons) -> tuple[Floats, Floats]:
    """Return the estimates, whose mean is 0, and their covariance."""
    strength = np.zeros(len(comparisons.models))
    for _ in range(_MAX_ITERATIONS):
        expected = comparisons.expected(strength)
        by_prompt = comparisons.by_prompt(comparisons.score - expected)
        bread = np.linalg.pinv(comparisons.laplacian(expected * (1 - expected)), hermitian=True)
        step = bread @ by_prompt.sum(axis=0)
        size = float(np.abs(step).max(initial=0.0))
        if size < _TOLERANCE:
            n = comparisons.prompts
            meat = (by_prompt.T @ by_prompt + _least_spread(comparisons)) * n / max(1, n - 1)
            return strength + step, bread @ meat @ bread
        # The likelihood is concave, but a long step may pass its maximum by more than it approaches it.
        strength = strength + step / max(1.0, size)
    raise CaiError(f"the Bradley-Terry model did not converge in {_MAX_ITERATIONS} iterations")


def _least_spread(comparisons: _Comparisons) -> Floats:
    """Return what is added to the spread over prompts, as the Wilson interval adds to that of a share.

    A judge that always prefers the same position, or always ties, gives every prompt the same sum, hence a spread of
    0, whatever the number of prompts. So z^2 average prompts are added, on which each comparison deviates by half a
    win. For two models without any spread, this gives the Wilson interval of a share of 0 deviating prompts.
    """
    low = np.minimum(comparisons.first, comparisons.second)
    high = np.maximum(comparisons.first, comparisons.second)
    _, pair, games = np.unique(low * len(comparisons.models) + high, return_inverse=True, return_counts=True)
    # The sum over the comparisons of a pair is z^2 (games / prompts / 2)^2.
    return comparisons.laplacian(Z_95**2 * games[pair] / (2 * comparisons.prompts) ** 2)


def _bounds(
    name: str, results: Sequence[PairResult], finite: dict[str, Strength], *, wins: bool, loses: bool
) -> Strength:
    """Return the bound of a model that only wins, or only loses, against those with finite estimates.

    Args:
        name: the model.
        results: all comparisons.
        finite: the estimates of the others, which are taken as exact.
        wins: True if the model has points against them, directly or through others.
        loses: True if they have points against it.
    """
    opponents = [
        (result.prompt, finite[other].value)
        for result in results
        for one, other in ((result.first, result.second), (result.second, result.first))
        if one == name and other in finite
    ]
    if not opponents:
        return Strength(None, None, None)
    games = Counter(prompt for prompt, _ in opponents)
    strengths = np.array([value for _, value in opponents], dtype=np.float64)
    weights = np.array([1 / games[prompt] for prompt, _ in opponents], dtype=np.float64)
    return Strength(
        None,
        _least_strength(strengths, weights) if wins else None,
        -_least_strength(-strengths, weights) if loses else None,
    )


def _least_strength(opponents: Floats, weights: Floats) -> float:
    """Return the strength at which winning everything is just compatible with chance, by the likelihood ratio.

    Args:
        opponents: the strength of the opponent in each comparison.
        weights: of the comparisons: those of one prompt count together as one.
    """
    # If all opponents had the same strength, it would be larger by `lead`.
    lead = -math.log(math.expm1(Z_95**2 / (2 * float(weights.sum()))))
    low, high = float(opponents.min()) + lead, float(opponents.max()) + lead
    for _ in range(60):
        middle = (low + high) / 2
        ratio = 2 * float(weights @ np.log1p(np.exp(opponents - middle)))
        low, high = (middle, high) if ratio > Z_95**2 else (low, middle)
    return low
