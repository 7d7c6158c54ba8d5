# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The protocol of a judge, which decides which of a prompt's candidate responses is better by the constitution.

Input:  JudgeInput(id, conversation, candidates=("I can help ...", "No, because ..."))
Output: Judgment(preferences=(Preference(chosen=1, rejected=0, probability=0.93, principle="crime"),),
                  verdicts=(Verdict(shown=(0, 1), better=1, worse=0, probability=0.03, ...), ...), counts)

A judge asks in turns: the questions of a turn may depend on the answers to earlier ones (the choice on the reasoning,
a tournament's next matches on the previous ones). Each turn is one step of the engine, so every answer is journaled.

An answer is parsed as a verdict or a tie, or counted as unparsed, with its raw text. Only the judge's own answer is
parsed, so no candidate can forge a verdict.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol, TypeVar

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.judged_row import JudgedVerdict
from nemo_aligner_cai.models.base import Completion, Request

_SHOWN = 200
"""Characters shown of an unparsed answer."""

# Names of the counts.
JUDGED, KEPT, TIES, UNSURE, UNPARSED = (
    "pairs judged",
    "pairs kept",
    "pairs that are ties",
    "pairs below the margin",
    "pairs without a verdict",
)
BOTH_ORDERS, FLIPS = "pairs with a verdict in both orders", "position flips"
VERDICTS, FIRST = "verdicts", "verdicts for the first position"
SILENT = "principles without a verdict on a pair"
VOTES, UNPARSED_VOTES = "votes", "votes without a verdict"
CUT_REASONINGS = "reasonings cut at the token limit"

T = TypeVar("T")


@dataclass(frozen=True)
class JudgeInput:
    """A prompt with its candidate responses; a candidate's number is its index."""

    id: str
    conversation: Conversation
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One question to the judge model. `shown` holds the numbers of the candidates in presentation order."""

    request: Request
    shown: tuple[int, ...]
    principle: str | None = None


@dataclass(frozen=True)
class Answer:
    """A question and the judge model's reply."""

    question: Question
    completion: Completion


Turn = Sequence[Answer]
"""The questions of one turn in the order asked, with their answers; empty if there was nothing to ask."""


@dataclass(frozen=True)
class Verdict:
    """One judge decision for one presentation order and one principle.

    Attributes:
        shown: numbers of the candidates in presentation order.
        principle: id of the principle; None if the judge was shown the whole constitution.
        better: number of the better candidate; None for a tie or an unparsed answer.
        worse: number of the worse candidate; None also if the judge names only the best one.
        probability: the judge's probability, in [0, 1], that the first candidate shown is better; None if unknown.
            A share of votes is a Fraction, so that comparisons with it are exact.
        raw: the judge's text.
        explanation: the part of the text that gives reasons.
        votes: number of answers sampled for this verdict; 0 if it rests on log-probabilities or on a single answer.
        unparsed_votes: number of those answers that name no candidate.
        is_cut: True if the explanation was cut at the token limit.
    """

    shown: tuple[int, ...]
    principle: str | None
    better: int | None
    worse: int | None
    probability: float | Fraction | None = None
    raw: str = ""
    explanation: str = ""
    votes: int = 0
    unparsed_votes: int = 0
    is_cut: bool = False

    @property
    def is_parsed(self) -> bool:
        """True for a decision or a tie, False for an unparsed answer."""
        return self.better is not None or self.probability is not None


@dataclass(frozen=True)
class Preference:
    """A kept comparison.

    `probability` in (0.5, 1] is the probability that `chosen` is better; None if the judge gave none.
    """

    chosen: int
    rejected: int
    probability: float | None
    principle: str | None
    explanation: str = ""


@dataclass(frozen=True)
class Judgment:
    """The preferences on one input, the verdicts behind them, and counts under this module's names."""

    preferences: tuple[Preference, ...]
    verdicts: tuple[Verdict, ...]
    counts: Counter[str] = field(default_factory=Counter[str])


class Judge(Protocol):
    """A judge strategy: pure functions of an input and of the judge model's completions."""

    @property
    def name(self) -> str:
        """The name by which the command line selects the strategy."""
        ...

    def max_turns(self, candidates: int) -> int:
        """Return the maximum number of turns for inputs with up to `candidates` candidates, at least 1."""
        ...

    def questions(self, judge_input: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """Return the questions of the turn after `past`; empty if the past turns suffice."""
        ...

    def decide(self, judge_input: JudgeInput, turns: Sequence[Turn]) -> Judgment:
        """Return the judgment that follows from the answers of all turns."""
        ...


def presentation_orders(candidates: int, *, both_orders: bool) -> list[tuple[int, ...]]:
    """Return the orders in which all candidates are shown at once: as numbered, and in reverse if `both_orders`."""
    shown = tuple(range(candidates))
    return [shown, shown[::-1]] if both_orders else [shown]


def agreed_choice(choices: Sequence[T | None], counts: Counter[str]) -> T | None:
    """Return the choice on which all presentation orders agree, else None; count the outcome in `counts`.

    `choices` holds one choice per order, None for an unparsed answer.
    """
    if None in choices:
        counts[UNPARSED] += 1
        return None
    agreed = len(set(choices)) == 1
    if len(choices) > 1:
        counts[BOTH_ORDERS] += 1
        counts[FLIPS] += not agreed
    counts[KEPT if agreed else TIES] += 1
    return choices[0] if agreed else None


def count_verdicts(verdicts: Sequence[Verdict]) -> Counter[str]:
    """Count verdicts, votes and cut reasonings, before the presentation orders are compared."""
    named = [verdict for verdict in verdicts if verdict.better is not None]
    counts = Counter({VERDICTS: len(named), FIRST: sum(verdict.better == verdict.shown[0] for verdict in named)})
    if votes := sum(verdict.votes for verdict in verdicts):
        counts.update({VOTES: votes, UNPARSED_VOTES: sum(verdict.unparsed_votes for verdict in verdicts)})
    if cut := sum(verdict.is_cut for verdict in verdicts):
        counts[CUT_REASONINGS] = cut
    return counts


def position_rates(counts: Mapping[str, int]) -> dict[str, float | None]:
    """Return how much the verdicts depend on the presentation order; a rate without data is None.

    ``position_flip_rate`` is the share of the pairs with a verdict in both orders for which the two verdicts differ.
    ``first_position_rate`` is the share of all verdicts that prefer the candidate shown first.
    """

    def share(part: str, whole: str) -> float | None:
        return counts.get(part, 0) / counts[whole] if counts.get(whole) else None

    return {"position_flip_rate": share(FLIPS, BOTH_ORDERS), "first_position_rate": share(FIRST, VERDICTS)}


def position_line(counts: Mapping[str, int]) -> str:
    """Format the rates of `position_rates`, and compare the flip rate with that of random guessing."""
    flips, first = position_rates(counts).values()
    shown = "unknown, no pair has a verdict in both orders" if flips is None else f"{flips:.1%}"
    line = f"position bias: flips {shown}; first position {'unknown' if first is None else f'{first:.1%}'}"
    return line if flips is None else line + _compared_to_chance(flips, counts[BOTH_ORDERS])


def _compared_to_chance(flips: float, pairs: int) -> str:
    # A judge that guesses flips half of the pairs.
    if flips >= 0.5:
        return f"; flips {flips:.0%}: no better than random guessing"
    if flips + 2 * math.sqrt(0.25 / pairs) >= 0.5:
        return f"; flips {flips:.0%} of {pairs} pairs: not distinguishable from random guessing"
    return ""


def unparsed_line(counts: Mapping[str, int], verdicts: Iterable[JudgedVerdict]) -> str | None:
    """Show one unparsed answer and the flags that can help; None if every pair has a verdict.

    Args:
        counts: under this module's names.
        verdicts: the verdicts of the written rows.
    """
    if not counts.get(UNPARSED):
        return None
    silent = (one for one in verdicts if not one.is_parsed)
    raw = next((one.raw for one in silent), "")
    return (
        f"no verdict on {counts[UNPARSED]} of {counts[JUDGED]} pairs; one answer: {raw[:_SHOWN]!r}. Try "
        "--judge multiple-choice, --judge-structured, --judge-max-tokens, --judge-few-shot-path or another "
        "--judge-model"
    )
