# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The judge that compares candidates in pairs: selects pairs, principles and orders, and aggregates the verdicts.

    input ─ pairs ─ principles ─ orders ─ strategy ─> one verdict each
    verdicts ─ mean over the principles of an order ─ agreement of the orders ─ margin ─> preference or counted reason

A `PairwiseStrategy` turns one principle and two candidates in one order into a verdict; strategies differ only there.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Protocol

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import Principle
from nemo_aligner_cai.engine.seeds import generator, rendezvous
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import (
    BOTH_ORDERS,
    FLIPS,
    JUDGED,
    KEPT,
    SILENT,
    TIES,
    UNPARSED,
    UNSURE,
    JudgeInput,
    Judgment,
    Preference,
    Question,
    Turn,
    Verdict,
    count_verdicts,
)
from nemo_aligner_cai.judges.orders import comparable, means_flip, order_means
from nemo_aligner_cai.judges.pairs import Pair, kept, levels, matches, remaining_after
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Completion, Request


@dataclass(frozen=True)
class PresentationOrder:
    """Two candidates in one order, to be judged by one principle."""

    conversation: Conversation
    principle: Principle
    shown: Pair
    texts: tuple[str, str]


class PairwiseStrategy(Protocol):
    """Turns a presentation order into a verdict, in one or more turns. Pure functions."""

    @property
    def max_turns(self) -> int:
        """The maximum number of turns."""
        ...

    def requests(self, order: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """Return the requests after the completions of the past turns; empty if those suffice."""
        ...

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """Return the verdict of all turns; `principle` is an id."""
        ...


@dataclass(frozen=True)
class _Match:
    """A pair's verdicts, the preference that follows, and the winner of this match in a tournament."""

    verdicts: tuple[Verdict, ...]
    preference: Preference | None
    winner: int
    counts: Counter[str]


@dataclass(frozen=True)
class PairJudge:
    """A `Judge` that compares pairs.

    Attributes:
        name: the judge's name.
        strategy: asks about one pair.
        settings: the judge's settings.
        principles_per_pair: number of principles drawn for a pair, the same for both orders.
    """

    name: str
    strategy: PairwiseStrategy
    settings: JudgeSettings
    principles_per_pair: int = 1

    def __post_init__(self) -> None:
        """Raises UsageError if the constitution has fewer principles than `principles_per_pair`."""
        constitution = self.settings.required_constitution
        if (count := len(constitution.for_judging)) < self.principles_per_pair:
            raise UsageError(
                f"{self.principles_per_pair} principles per pair are needed, but the constitution "
                f"{constitution.name!r} has {count} with a judge request"
            )

    def max_turns(self, candidates: int) -> int:
        """Each level of a tournament has all turns of the strategy."""
        return levels(self.settings.pairs, candidates) * self.strategy.max_turns

    def questions(self, judge_input: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """Ask about each pair of the current level, by each drawn principle and in each order."""
        *finished, current = self._by_level(past)
        _, remaining = self._play(judge_input, finished)
        completions = _by_order(current)
        return [
            Question(request, order.shown, order.principle.id)
            for pair in matches(self.settings.pairs, remaining, generator(self.settings.seed, judge_input.id, "pair"))
            for order in self._orders(judge_input, pair)
            for request in self.strategy.requests(order, completions.get((order.shown, order.principle.id), ()))
        ]

    def decide(self, judge_input: JudgeInput, turns: Sequence[Turn]) -> Judgment:
        """Aggregate the verdicts of all levels."""
        *finished, _ = self._by_level(turns)
        played, _ = self._play(judge_input, finished)
        counts = sum((match.counts for match in played), Counter[str]())
        clear = [match.preference for match in played if match.preference is not None]
        preferences = kept(self.settings.pairs, clear, len(judge_input.candidates))
        counts[KEPT] += len(preferences)
        return Judgment(tuple(preferences), tuple(chain.from_iterable(match.verdicts for match in played)), counts)

    def _by_level(self, past: Sequence[Turn]) -> list[Sequence[Turn]]:
        """Split turns by level; the last level is the current one, which may have no turns yet."""
        size = self.strategy.max_turns
        return [past[start : start + size] for start in range(0, len(past) + 1, size)]

    def _play(self, judge_input: JudgeInput, finished: Sequence[Sequence[Turn]]) -> tuple[list[_Match], Sequence[int]]:
        """Return the matches of the finished levels, and the candidates that remain after them."""
        played: list[_Match] = []
        remaining: Sequence[int] = range(len(judge_input.candidates))
        for level in finished:
            by_pair: dict[Pair, list[Verdict]] = {}
            for (shown, principle), completions in _by_order(level).items():
                pair = shown if (shown[1], shown[0]) not in by_pair else (shown[1], shown[0])
                by_pair.setdefault(pair, []).append(self.strategy.verdict(shown, principle, completions))
            match_of = {pair: self._match(pair, verdicts) for pair, verdicts in by_pair.items()}
            remaining = remaining_after(remaining, {pair: match.winner for pair, match in match_of.items()})
            played += match_of.values()
        return played, remaining

    def _orders(self, judge_input: JudgeInput, pair: Pair) -> list[PresentationOrder]:
        available = self.settings.required_constitution.for_judging
        names = [principle.id for principle in available]
        drawn = rendezvous(self.settings.seed, judge_input.id, "judge", *pair, names=names)
        texts = judge_input.candidates
        return [
            PresentationOrder(judge_input.conversation, available[position], shown, (texts[shown[0]], texts[shown[1]]))
            for position in drawn[: self.principles_per_pair]
            for shown in ([pair, (pair[1], pair[0])] if self.settings.both_orders else [pair])
        ]

    def _match(self, pair: Pair, verdicts: Sequence[Verdict]) -> _Match:
        counts = Counter({JUDGED: 1}) + count_verdicts(verdicts)
        compared = comparable(verdicts)
        if silent := self.principles_per_pair - len({verdict.principle for verdict in compared}):
            counts[SILENT] += silent
        means = order_means(compared, pair[0])
        winner = pair[1] if (means and sum(means) / len(means) < 0.5) else pair[0]
        return _Match(tuple(verdicts), self._preference(pair, means, verdicts, counts), winner, counts)

    def _preference(
        self, pair: Pair, means: Sequence[float | Fraction], verdicts: Sequence[Verdict], counts: Counter[str]
    ) -> Preference | None:
        """Return the preference on which all orders agree, else None; count the outcome in `counts`.

        `means` holds, per order, the probability that the first candidate of the pair is better.
        """
        if not means:
            counts[UNPARSED] += 1
            return None
        if (flip := means_flip(means)) is not None:
            counts[BOTH_ORDERS] += 1
            counts[FLIPS] += flip
        if min(means) <= 0.5 <= max(means):
            counts[TIES] += 1
            return None
        p = sum(means) / len(means)
        better, worse = pair if p > 0.5 else pair[::-1]
        p = max(p, 1 - p)
        # The decimal number as written: in binary floating point 2 * 0.6 - 1 < 0.2.
        if 2 * p - 1 < Fraction(str(self.settings.margin)):
            counts[UNSURE] += 1
            return None
        principle = verdicts[0].principle if self.principles_per_pair == 1 else None
        explanation = next((verdict.explanation for verdict in verdicts if verdict.better == better), "")
        return Preference(better, worse, float(p), principle, explanation)


def _by_order(level: Sequence[Turn]) -> dict[tuple[Pair, str], list[list[Completion]]]:
    """Map (shown, principle) to the completions of each turn, in the order of the first turn's questions."""
    completions: dict[tuple[Pair, str], list[list[Completion]]] = {}
    for number, turn in enumerate(level):
        for answer in turn:
            shown, principle = answer.question.shown, answer.question.principle
            assert len(shown) == 2 and principle is not None, "every question of this judge has both"
            completions.setdefault((shown, principle), [[] for _ in level])[number].append(answer.completion)
    return completions
