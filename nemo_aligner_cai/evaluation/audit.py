# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Audit of AI preferences: what else a judge's choices go by, besides the constitution.

Input:  rows of stages/comparisons.py: candidates, the pairs that were kept, and every verdict, also of prompts of
        which no pair was kept
Output: Audit: for all rows and for each principle, how many pairs are told apart and kept, and how often the longer
        text, and the one shown first, is preferred
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.data.judged_row import JudgedRow, JudgedVerdict
from nemo_aligner_cai.evaluation.rates import Z_95, Rate

WHOLE = "(whole constitution)"
"""Stands for the principle where a judge was shown all of them."""


@dataclass
class PerPrompt:
    """The mean of figures of which a prompt may have several, and how sure it is.

    Figures of one prompt resemble each other, so it is prompts that are independent. The standard error is that of a
    ratio of two sums over prompts (Cochran, Sampling Techniques, 1977, chapter 6); for a share, it says how many
    independent figures would be as sure, and Wilson's interval is that of so many (as in Korn and Graubard, Survey
    Methodology 24, 1998).
    """

    prompts: int = 0
    count: int = 0
    total: float = 0.0
    _counts_squared: float = 0.0
    _cross: float = 0.0
    _totals_squared: float = 0.0

    def add(self, figures: Iterable[float]) -> None:
        """Add the figures of one prompt."""
        given = list(figures)
        if not given:
            return
        count, total = len(given), math.fsum(given)
        self.prompts += 1
        self.count += count
        self.total += total
        self._counts_squared += count * count
        self._cross += count * total
        self._totals_squared += total * total

    @property
    def mean(self) -> float | None:
        """None where there are no figures."""
        return self.total / self.count if self.count else None

    @property
    def variance(self) -> float:
        """The square of the mean's standard error; 0 where there are no figures."""
        mean = self.mean
        if mean is None:
            return 0.0
        squares = self._totals_squared - 2 * mean * self._cross + mean * mean * self._counts_squared
        return max(0.0, squares) / self.count**2

    @property
    def interval(self) -> tuple[float, float] | None:
        """The mean's 95 % interval (normal); None with fewer than two prompts."""
        if self.mean is None or self.prompts < 2:
            return None
        half = Z_95 * math.sqrt(self.variance)
        return self.mean - half, self.mean + half

    @property
    def rate(self) -> Rate | None:
        """Of figures that are 0 or 1: their share with its interval; None where there are none."""
        p = self.mean
        if p is None:
            return None
        if not 0.0 < p < 1.0:
            return Rate.of_share(p, self.prompts)  # all alike: the variance says nothing
        spread = p * (1 - p)
        sure = spread / self.variance if self.variance > spread / self.count else self.count
        return Rate.of_share(p, max(1.0, sure))


@dataclass(frozen=True)
class _Judged:
    """What one principle came to on one set of candidates, over all orders in which they were shown."""

    principle: str
    parsed: bool
    flipped: bool | None
    """Whether the orders name different candidates; None where not both have named one."""
    preference: tuple[int, int] | None
    """(better, worse) where all orders agree."""
    firsts: list[bool]
    """Of each verdict, whether it names the candidate that was shown first."""
    chances: list[float]
    """Of each verdict, how probable that is by chance."""


def _judged(verdicts: Sequence[JudgedVerdict]) -> list[_Judged]:
    groups: dict[tuple[str, frozenset[int]], list[JudgedVerdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.principle or WHOLE, frozenset(verdict.shown)), []).append(verdict)
    return [_came_to(principle, group) for (principle, _), group in groups.items()]


def _came_to(principle: str, group: Sequence[JudgedVerdict]) -> _Judged:
    named = [verdict for verdict in group if verdict.better is not None]
    choices = {(verdict.better, verdict.worse) for verdict in named}
    better, worse = next(iter(choices)) if len(named) == len(group) and len(choices) == 1 else (None, None)
    return _Judged(
        principle,
        parsed=all(verdict.better is not None or verdict.probability is not None for verdict in group),
        flipped=len(choices) > 1 if len({tuple(verdict.shown) for verdict in named}) > 1 else None,
        preference=None if better is None or worse is None else (better, worse),
        firsts=[verdict.better == verdict.shown[0] for verdict in named],
        chances=[1 / len(verdict.shown) for verdict in named],
    )


@dataclass
class Figures:
    """What verdicts come to: of all rows, or by one principle.

    `pairs` were judged, of which `unparsed` have a verdict that is none, `decided` name the same candidate in all
    orders, and `kept` are among the pairs that were kept. `flips` is over pairs named in both orders, `first` over
    single verdicts, `longer` over decided pairs of unequal length.
    """

    pairs: int = 0
    unparsed: int = 0
    decided: int = 0
    kept: int = 0
    flips: PerPrompt = field(default_factory=PerPrompt)
    first: PerPrompt = field(default_factory=PerPrompt)
    first_by_chance: PerPrompt = field(default_factory=PerPrompt)
    longer: PerPrompt = field(default_factory=PerPrompt)

    def add(self, judged: Sequence[_Judged], lengths: Sequence[int], kept: set[tuple[int, int]]) -> None:
        """Add what was judged on one prompt; `lengths` are the candidates', in characters."""
        decided = [one.preference for one in judged if one.preference is not None]
        self.pairs += len(judged)
        self.unparsed += sum(not one.parsed for one in judged)
        self.decided += len(decided)
        self.kept += sum(pair in kept for pair in decided)
        self.flips.add(one.flipped for one in judged if one.flipped is not None)
        self.first.add(first for one in judged for first in one.firsts)
        self.first_by_chance.add(chance for one in judged for chance in one.chances)
        self.longer.add(_longer(decided, lengths))

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "pairs": self.pairs,
            "unparsed": self.unparsed,
            "decided": self.decided,
            "kept": self.kept,
            "position_flip_rate": rate_dict(self.flips.rate),
            "first_position_rate": rate_dict(self.first.rate),
            "first_position_by_chance": self.first_by_chance.mean,
            "longer_wins": rate_dict(self.longer.rate),
        }


def _longer(pairs: Iterable[tuple[int, int]], lengths: Sequence[int]) -> list[bool]:
    return [lengths[won] > lengths[lost] for won, lost in pairs if lengths[won] != lengths[lost]]


@dataclass
class Audit:
    """The figures of one file. Memory grows with the principles and the candidates' keys, not with the rows.

    `longer` and `length_ratio` are of the kept pairs, that is of what is trained on; the ratio is that of the chosen
    text's length to the rejected one's, in characters, as a geometric mean (a mean of ratios is above 1 even where
    lengths have no influence). `wins` tells, for each candidate key, which of its kept pairs it won.
    """

    rows: int = 0
    rows_without_pair: int = 0
    pairs: int = 0
    all: Figures = field(default_factory=Figures)
    principles: dict[str, Figures] = field(default_factory=dict[str, Figures])
    longer: PerPrompt = field(default_factory=PerPrompt)
    _log_ratio: PerPrompt = field(default_factory=PerPrompt)
    wins: dict[str, PerPrompt] = field(default_factory=dict[str, PerPrompt])

    def add(self, row: JudgedRow) -> None:
        """Add a row."""
        lengths = [len(candidate.text) for candidate in row.candidates]
        kept = row.kept()
        judged = _judged(row.verdicts)
        self.rows += 1
        self.rows_without_pair += not kept
        self.pairs += len(kept)
        self.all.add(judged, lengths, set(kept))
        for principle in dict.fromkeys(one.principle for one in judged):
            figures = self.principles.setdefault(principle, Figures())
            figures.add([one for one in judged if one.principle == principle], lengths, set(kept))
        self.longer.add(_longer(kept, lengths))
        self._log_ratio.add(math.log(max(1, lengths[won]) / max(1, lengths[lost])) for won, lost in kept)
        for number, candidate in enumerate(row.candidates):
            won = [pair[0] == number for pair in kept if number in pair]
            self.wins.setdefault(candidate.key, PerPrompt()).add(won)

    @property
    def length_ratio(self) -> tuple[float, tuple[float, float] | None] | None:
        """The geometric mean with its 95 % interval, None where nothing was kept."""
        mean, interval = self._log_ratio.mean, self._log_ratio.interval
        if mean is None:
            return None
        return math.exp(mean), (math.exp(interval[0]), math.exp(interval[1])) if interval else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        ratio = self.length_ratio
        return {
            "rows": self.rows,
            "rows_without_pair": self.rows_without_pair,
            "pairs": self.pairs,
            "chosen_is_longer": rate_dict(self.longer.rate),
            "length_ratio": ratio and {"mean": ratio[0], "interval": ratio[1]},
            "verdicts": self.all.to_dict(),
            "principles": {name: figures.to_dict() for name, figures in sorted(self.principles.items())},
            "candidates": {key: rate_dict(wins.rate) for key, wins in sorted(self.wins.items())},
        }


def rate_dict(rate: Rate | None) -> dict[str, float] | None:
    """A rate as JSON holds it; `n` is how many independent figures it is as sure as."""
    return rate and {"value": rate.value, "low": rate.low, "high": rate.high, "n": rate.n}
