# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Audit of AI preferences: biases of a judge other than the constitution.

Input:  rows of `data.judged_row`: candidates, kept pairs and all verdicts, including prompts without a kept pair
Output: Audit: for all rows and for each principle, the numbers of decided and kept pairs, and the rates at which the
        longer text and the text shown first are preferred
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.data.judged_row import JudgedRow, JudgedVerdict
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, rate_dict

WHOLE = "(whole constitution)"
"""Replaces the principle if the judge was shown all principles."""


@dataclass(frozen=True)
class PairOutcome:
    """The verdicts of one principle on one set of candidates, over all presentation orders.

    Attributes:
        principle: its id.
        shown: the candidates.
        parsed: True if every verdict was parsed.
        flipped: True if the orders prefer different candidates; None unless two orders have a decision.
        preference: (better, worse) if all orders agree.
        firsts: for each decision, True if it prefers the candidate shown first.
        chances: for each decision, the probability of that by chance.
    """

    principle: str
    shown: frozenset[int]
    parsed: bool
    flipped: bool | None
    preference: tuple[int, int] | None
    firsts: list[bool]
    chances: list[float]


def outcomes_of(verdicts: Sequence[JudgedVerdict]) -> list[PairOutcome]:
    """Return an outcome for each principle and each set of candidates that it judged."""
    groups: dict[tuple[str, frozenset[int]], list[JudgedVerdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.principle or WHOLE, frozenset(verdict.shown)), []).append(verdict)
    return [_outcome(principle, group) for (principle, _), group in groups.items()]


def _outcome(principle: str, group: Sequence[JudgedVerdict]) -> PairOutcome:
    decided = [verdict for verdict in group if verdict.better is not None]
    choices = {(verdict.better, verdict.worse) for verdict in decided}
    better, worse = next(iter(choices)) if len(decided) == len(group) and len(choices) == 1 else (None, None)
    return PairOutcome(
        principle,
        frozenset(group[0].shown),
        parsed=all(verdict.is_parsed for verdict in group),
        flipped=len(choices) > 1 if len({tuple(verdict.shown) for verdict in decided}) > 1 else None,
        preference=None if better is None or worse is None else (better, worse),
        firsts=[verdict.better == verdict.shown[0] for verdict in decided],
        chances=[1 / len(verdict.shown) for verdict in decided],
    )


@dataclass
class VerdictStats:
    """Statistics of verdicts, of all rows or by one principle.

    Attributes:
        pairs: judged pairs.
        unparsed: pairs with an unparsed verdict.
        decided: pairs on which all orders agree.
        kept: decided pairs that are among the kept pairs.
        flips: rate over pairs with a decision in both orders, by each principle; a tie is no decision. The judge's
            `position_flip_rate` instead compares the means over the principles.
        first: rate of the first position over single verdicts.
        first_by_chance: the mean probability of that by chance.
        longer: rate of the longer text over decided pairs of unequal length.
    """

    pairs: int = 0
    unparsed: int = 0
    decided: int = 0
    kept: int = 0
    flips: ClusteredMean = field(default_factory=ClusteredMean)
    first: ClusteredMean = field(default_factory=ClusteredMean)
    first_by_chance: ClusteredMean = field(default_factory=ClusteredMean)
    longer: ClusteredMean = field(default_factory=ClusteredMean)

    def add(self, outcomes: Sequence[PairOutcome], lengths: Sequence[int], kept: set[tuple[int, int]]) -> None:
        """Add the outcomes of one prompt; `lengths` are those of its candidates, in characters."""
        decided = [one.preference for one in outcomes if one.preference is not None]
        self.pairs += len(outcomes)
        self.unparsed += sum(not one.parsed for one in outcomes)
        self.decided += len(decided)
        self.kept += sum(pair in kept for pair in decided)
        self.flips.add(one.flipped for one in outcomes if one.flipped is not None)
        self.first.add(first for one in outcomes for first in one.firsts)
        self.first_by_chance.add(chance for one in outcomes for chance in one.chances)
        self.longer.add(_longer(decided, lengths))

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON values."""
        return {
            "pairs": self.pairs,
            "unparsed": self.unparsed,
            "decided": self.decided,
            "kept": self.kept,
            "verdict_flip_rate": rate_dict(self.flips.rate),
            "first_position_rate": rate_dict(self.first.rate),
            "first_position_by_chance": self.first_by_chance.mean,
            "longer_wins": rate_dict(self.longer.rate),
        }


def _longer(pairs: Iterable[tuple[int, int]], lengths: Sequence[int]) -> list[bool]:
    return [lengths[better] > lengths[worse] for better, worse in pairs if lengths[better] != lengths[worse]]


@dataclass
class Audit:
    """The statistics of one file. Memory grows with the numbers of principles and candidate keys, not with the rows.

    Attributes:
        rows: all rows.
        rows_without_pair: rows without a kept pair.
        pairs: kept pairs.
        all: statistics of all verdicts.
        principles: statistics by principle.
        longer: rate at which the chosen text of a kept pair is the longer one.
        wins: candidate key -> rate at which it is chosen in its kept pairs.
    """

    rows: int = 0
    rows_without_pair: int = 0
    pairs: int = 0
    all: VerdictStats = field(default_factory=VerdictStats)
    principles: dict[str, VerdictStats] = field(default_factory=dict[str, VerdictStats])
    longer: ClusteredMean = field(default_factory=ClusteredMean)
    _log_ratio: ClusteredMean = field(default_factory=ClusteredMean)
    wins: dict[str, ClusteredMean] = field(default_factory=dict[str, ClusteredMean])

    def add(self, row: JudgedRow) -> None:
        """Add a row."""
        lengths = [len(candidate.text) for candidate in row.candidates]
        kept = row.kept()
        outcomes = outcomes_of(row.verdicts)
        self.rows += 1
        self.rows_without_pair += not kept
        self.pairs += len(kept)
        self.all.add(outcomes, lengths, set(kept))
        for principle in dict.fromkeys(one.principle for one in outcomes):
            stats = self.principles.setdefault(principle, VerdictStats())
            stats.add([one for one in outcomes if one.principle == principle], lengths, set(kept))
        self.longer.add(_longer(kept, lengths))
        self._log_ratio.add(math.log(max(1, lengths[won]) / max(1, lengths[lost])) for won, lost in kept)
        for number, candidate in enumerate(row.candidates):
            won = [pair[0] == number for pair in kept if number in pair]
            self.wins.setdefault(candidate.key, ClusteredMean()).add(won)

    @property
    def length_ratio(self) -> tuple[float, tuple[float, float] | None] | None:
        """The mean ratio of chosen to rejected length, in characters, with its 95 % interval; None without pairs.

        The mean is geometric: an arithmetic mean of ratios exceeds 1 even if length has no influence.
        """
        mean, interval = self._log_ratio.mean, self._log_ratio.interval
        if mean is None:
            return None
        return math.exp(mean), (math.exp(interval[0]), math.exp(interval[1])) if interval else None

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON values."""
        ratio = self.length_ratio
        return {
            "rows": self.rows,
            "rows_without_pair": self.rows_without_pair,
            "pairs": self.pairs,
            "chosen_is_longer": rate_dict(self.longer.rate),
            "length_ratio": ratio and {"mean": ratio[0], "interval": ratio[1]},
            "verdicts": self.all.to_dict(),
            "principles": {name: stats.to_dict() for name, stats in sorted(self.principles.items())},
            "candidates": {key: rate_dict(wins.rate) for key, wins in sorted(self.wins.items())},
        }
