# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a reward model on pairs with a known better reply, its calibration, and its preference for length.

Input:  ScoredPair
Output: RewardAccuracy(pairs=350, accuracy=Rate(0.623, ...), calibration=Calibration(predicted=0.936, ...), ...)

By the Bradley-Terry model, on which reward models are trained, the first reply is better with probability
1 / (1 + exp(second's score - first's score)). The reward model forecasts that the reply with the higher score is
better; calibration compares the probability of that with how often it is.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.known_answers.reward_scores import ScoredPair
from nemo_aligner_cai.evaluation.statistics.calibration import Calibration, calibration
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, Rate

_HISTOGRAM_BINS = 20
_LENGTH_BINS = 10


@dataclass(frozen=True)
class Histogram:
    """Counts of scores between `edges`, for the better and the other replies."""

    edges: tuple[float, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True)
class LengthBin:
    """Replies of similar length: their number, and the means of their lengths in characters and of their scores."""

    replies: int
    length: float
    score: float


@dataclass(frozen=True)
class LengthBias:
    """The influence of length on the score.

    Attributes:
        correlation: Spearman's rank correlation of length and score over all replies; None if all are equal.
        longer_preferred: the share of pairs of unequal length in which the longer reply has the higher score.
        longer_better: the share of these pairs in which the longer reply is the better one.
        accuracy_if_longer_better: accuracy on pairs whose better reply is the longer one.
        accuracy_if_shorter_better: accuracy on pairs whose better reply is the shorter one.
        bins: replies by increasing length, in bins of equal numbers.
    """

    correlation: float | None
    longer_preferred: Rate | None
    longer_better: Rate | None
    accuracy_if_longer_better: Rate | None
    accuracy_if_shorter_better: Rate | None
    bins: tuple[LengthBin, ...]


@dataclass(frozen=True)
class RewardAccuracy:
    """The figures of a reward model.

    Attributes:
        pairs: number of pairs.
        ties: pairs with equal scores, which are not correct.
        accuracy: the share of pairs whose better reply has the higher score; the interval counts prompts.
        categories: the same by category.
        calibration: of the probability of the reply with the higher score; `brier` and `log_loss` are those of the
            probability of the better reply.
        scores: histogram of the scores.
        margins: histogram of the score differences; positive ones in `chosen`, the others in `rejected`.
        length: the influence of length.
    """

    pairs: int
    ties: int
    accuracy: Rate
    categories: dict[str, Rate]
    calibration: Calibration
    scores: Histogram
    margins: Histogram
    length: LengthBias

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def reward_accuracy(pairs: Sequence[ScoredPair]) -> RewardAccuracy:
    """Return the figures of a reward model; raises CaiError if there are no pairs."""
    accuracy = _share(pairs, _is_right)
    if accuracy is None:
        raise CaiError("the accuracy of a reward model needs at least one pair, there are 0")
    by_category: defaultdict[str, list[ScoredPair]] = defaultdict(list)
    for pair in pairs:
        if pair.category is not None:
            by_category[pair.category].append(pair)
    margins = [pair.margin for pair in pairs]
    return RewardAccuracy(
        len(pairs),
        margins.count(0.0),
        accuracy,
        {name: rate for name, part in sorted(by_category.items()) if (rate := _share(part, _is_right)) is not None},
        calibration((_sigmoid(abs(margin)), margin > 0) for margin in margins),
        _histogram([pair.chosen.score for pair in pairs], [pair.rejected.score for pair in pairs]),
        _histogram([margin for margin in margins if margin > 0], [margin for margin in margins if margin <= 0]),
        _length_bias(pairs),
    )


def _is_right(pair: ScoredPair) -> bool:
    return pair.margin > 0


def _share(pairs: Iterable[ScoredPair], holds: Callable[[ScoredPair], bool]) -> Rate | None:
    """Return the share of pairs for which `holds` is true; None without pairs."""
    by_prompt: defaultdict[str, list[bool]] = defaultdict(list)
    for pair in pairs:
        by_prompt[pair.prompt].append(holds(pair))
    mean = ClusteredMean()
    for values in by_prompt.values():
        mean.add(values)
    return mean.rate


def _sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def _histogram(chosen: Sequence[float], rejected: Sequence[float]) -> Histogram:
    edges = np.histogram_bin_edges([*chosen, *rejected], _HISTOGRAM_BINS)
    counts = (np.histogram(scores, edges)[0].tolist() for scores in (chosen, rejected))
    return Histogram(tuple(edges.tolist()), *map(tuple, counts))


def _length_bias(pairs: Sequence[ScoredPair]) -> LengthBias:
    unequal = [pair for pair in pairs if pair.chosen.length != pair.rejected.length]
    longer = [pair for pair in unequal if pair.chosen.length > pair.rejected.length]
    shorter = [pair for pair in unequal if pair.chosen.length < pair.rejected.length]
    replies = [reply for pair in pairs for reply in (pair.chosen, pair.rejected)]
    lengths = np.array([reply.length for reply in replies], dtype=np.float64)
    scores = np.array([reply.score for reply in replies], dtype=np.float64)
    parts = np.array_split(np.argsort(lengths, kind="stable"), min(_LENGTH_BINS, len(replies)))
    return LengthBias(
        _rank_correlation(lengths, scores),
        _share(unequal, lambda pair: (pair.chosen.length - pair.rejected.length) * pair.margin > 0),
        _share(unequal, lambda pair: pair.chosen.length > pair.rejected.length),
        _share(longer, _is_right),
        _share(shorter, _is_right),
        tuple(LengthBin(len(part), float(lengths[part].mean()), float(scores[part].mean())) for part in parts),
    )


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation, with mean ranks for equal values; None if all values are equal."""
    ranks = [_ranks(values) for values in (first, second)]
    deviations = [one - one.mean() for one in ranks]
    spread = math.sqrt(float(deviations[0] @ deviations[0]) * float(deviations[1] @ deviations[1]))
    return float(deviations[0] @ deviations[1]) / spread if spread else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[index]
