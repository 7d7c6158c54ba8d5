# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Judging two candidates at a time: which pairs, by which principles, in which order, and what all of it comes to.

    case ─ pairs ─ principles ─ orders ─ ballot ─> one verdict each
    verdicts ─ mean over the principles of an order ─ the orders compared ─ margin ─> preference, or a counted reason

The ballot is what strategies differ in: how one principle and two candidates in one order become a verdict.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Protocol

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import Constitution, Principle
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
    Judgement,
    Preference,
    Question,
    Turn,
    Verdict,
    count_verdicts,
)
from nemo_aligner_cai.judges.pairs import Pair, Pairs, kept, levels, matches, standing_after
from nemo_aligner_cai.models.base import Completion, Request


@dataclass(frozen=True)
class PresentationOrder:
    """What one ballot is about: two candidates in one order, by one principle."""

    conversation: Conversation
    principle: Principle
    shown: Pair
    texts: tuple[str, str]


class PairwiseStrategy(Protocol):
    """How a showing becomes a verdict, in one or more rounds. Pure functions."""

    @property
    def rounds(self) -> int:
        """The most rounds that it takes."""
        ...

    def requests(self, showing: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """What to ask after these rounds; none where they have told all."""
        ...

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """What all rounds come to; `principle` is its id."""
        ...


@dataclass(frozen=True)
class _Match:
    """A pair's verdicts, what they come to, and who goes on in a tournament."""

    verdicts: tuple[Verdict, ...]
    preference: Preference | None
    winner: int
    counts: Counter[str]


@dataclass(frozen=True)
class PairJudge:
    """A `Judge` of pairs. See the module.

    Attributes:
        name: the strategy's.
        constitution: the principles with a judge request.
        ballot: how one is asked about two candidates.
        seed: the run's.
        pairs: which candidates are compared.
        both_orders: ask twice with the candidates exchanged.
        margin: least distance of the two probabilities, ``|2 p - 1|``, for a pair to be kept.
        principles_per_pair: how many principles are drawn for a pair, the same for both orders.
    """

    name: str
    constitution: Constitution
    ballot: PairwiseStrategy
    seed: int
    pairs: Pairs
    both_orders: bool
    margin: float
    principles_per_pair: int = 1

    def __post_init__(self) -> None:
        """Raises UsageError where there are fewer principles than are to be drawn."""
        if (there_are := len(self.constitution.for_judging)) < self.principles_per_pair:
            raise UsageError(
                f"{self.principles_per_pair} principles for each pair, but the constitution "
                f"{self.constitution.name!r} has {there_are} with a judge request"
            )

    def rounds(self, candidates: int) -> int:
        """See `Judge`."""
        return levels(self.pairs, candidates) * self.ballot.rounds

    def questions(self, case: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """See `Judge`."""
        *told, current = self._by_level(past)
        _, standing = self._play(case, told)
        said = _by_showing(current)
        return [
            Question(request, showing.shown, showing.principle.id)
            for pair in matches(self.pairs, standing, generator(self.seed, case.id, "pair"))
            for showing in self._showings(case, pair)
            for request in self.ballot.requests(showing, said.get((showing.shown, showing.principle.id), ()))
        ]

    def decide(self, case: JudgeInput, rounds: Sequence[Turn]) -> Judgement:
        """See `Judge`."""
        *told, _ = self._by_level(rounds)
        found, _ = self._play(case, told)
        counts = sum((match.counts for match in found), Counter[str]())
        clear = [match.preference for match in found if match.preference is not None]
        preferences = kept(self.pairs, clear, len(case.candidates))
        counts[KEPT] += len(preferences)
        return Judgement(tuple(preferences), tuple(chain.from_iterable(match.verdicts for match in found)), counts)

    def _by_level(self, past: Sequence[Turn]) -> list[Sequence[Turn]]:
        """The rounds of each level; the last level is the one whose turn it is, and may have had none."""
        size = self.ballot.rounds
        return [past[start : start + size] for start in range(0, len(past) + 1, size)]

    def _play(self, case: JudgeInput, told: Sequence[Sequence[Turn]]) -> tuple[list[_Match], Sequence[int]]:
        """The matches of the levels that are told, and the candidates that are left after them."""
        found: list[_Match] = []
        standing: Sequence[int] = range(len(case.candidates))
        for level in told:
            by_pair: dict[Pair, list[Verdict]] = {}
            for (shown, principle), said in _by_showing(level).items():
                pair = shown if (shown[1], shown[0]) not in by_pair else (shown[1], shown[0])
                by_pair.setdefault(pair, []).append(self.ballot.verdict(shown, principle, said))
            played = {pair: self._match(pair, verdicts) for pair, verdicts in by_pair.items()}
            standing = standing_after(standing, {pair: match.winner for pair, match in played.items()})
            found += played.values()
        return found, standing

    def _showings(self, case: JudgeInput, pair: Pair) -> list[PresentationOrder]:
        judging = self.constitution.for_judging
        drawn = rendezvous(self.seed, case.id, "judge", *pair, names=[principle.id for principle in judging])
        principles = [judging[position] for position in drawn[: self.principles_per_pair]]
        orders = [pair, (pair[1], pair[0])] if self.both_orders else [pair]
        return [
            PresentationOrder(
                case.conversation, principle, order, (case.candidates[order[0]], case.candidates[order[1]])
            )
            for principle in principles
            for order in orders
        ]

    def _match(self, pair: Pair, verdicts: Sequence[Verdict]) -> _Match:
        counts = Counter({JUDGED: 1}) + count_verdicts(verdicts)
        orders = list(dict.fromkeys(verdict.shown for verdict in verdicts))
        # A principle speaks in all orders or in none: else the orders would be compared over different principles.
        told = [verdict.principle for verdict in verdicts if verdict.probability is not None]
        heard = {principle for principle in told if told.count(principle) == len(orders)}
        if silent := self.principles_per_pair - len(heard):
            counts[SILENT] += silent
        means = [
            _mean([_for_first(v, pair) for v in verdicts if v.shown == order and v.principle in heard])
            for order in orders
        ]
        said = [mean for mean in means if mean is not None]
        winner = pair[1] if (said and sum(said) / len(said) < 0.5) else pair[0]
        preference = self._agreed(pair, said, verdicts, counts)
        return _Match(tuple(verdicts), preference, winner, counts)

    def _agreed(
        self, pair: Pair, said: Sequence[float | Fraction], verdicts: Sequence[Verdict], counts: Counter[str]
    ) -> Preference | None:
        """The preference on which all orders agree, None where there is none; counts why.

        `said` holds, for each order, the probability that the pair's first candidate is better.
        """
        if not said:
            counts[UNPARSED] += 1
            return None
        if len(said) > 1:
            counts[BOTH_ORDERS] += 1
            counts[FLIPS] += min(said) < 0.5 < max(said)
        if min(said) <= 0.5 <= max(said):
            counts[TIES] += 1
            return None
        p = sum(said) / len(said)
        better, worse = pair if p > 0.5 else pair[::-1]
        p = max(p, 1 - p)
        # The decimal number as written: in binary floating point 2 * 0.6 - 1 < 0.2.
        if 2 * p - 1 < Fraction(str(self.margin)):
            counts[UNSURE] += 1
            return None
        principle = verdicts[0].principle if self.principles_per_pair == 1 else None
        explanation = next((verdict.explanation for verdict in verdicts if verdict.better == better), "")
        return Preference(better, worse, float(p), principle, explanation)


def _by_showing(level: Sequence[Turn]) -> dict[tuple[Pair, str], list[list[Completion]]]:
    """The answers to each showing's questions, by round, in the order of the first round."""
    said: dict[tuple[Pair, str], list[list[Completion]]] = {}
    for number, asked in enumerate(level):
        for answered in asked:
            question = answered.question
            assert len(question.shown) == 2 and question.principle is not None, "as this judge asks"
            said.setdefault((question.shown, question.principle), [[] for _ in level])[number].append(
                answered.completion
            )
    return said


def _for_first(verdict: Verdict, pair: Pair) -> float | Fraction:
    """The probability that the pair's first candidate is the better one, by a verdict that has one."""
    assert verdict.probability is not None
    return verdict.probability if verdict.shown == pair else 1 - verdict.probability


def _mean(values: Sequence[float | Fraction]) -> float | Fraction | None:
    return sum(values) / len(values) if values else None
