# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a judge is: which of a prompt's candidate responses is better by the constitution.

Input:  Case(id, conversation, candidates=("I can help ...", "No, because ..."))
Output: Judgement(preferences=(Preference(chosen=1, rejected=0, probability=0.93, principle="crime"),),
                  verdicts=(Verdict(shown=(0, 1), better=1, worse=0, probability=0.03, ...), ...), counts)

A judge asks in rounds: the questions of a round may depend on the answers to earlier ones (the choice on the
reasoning, a tournament's next matches on the last ones). Each round is one step of the engine, so that all that a
judge says is journaled alike. The strategies are in `judges/`.

Nothing is guessed. What the judge said is a verdict, a tie, or *unparsed* with the raw text kept; and it is read out
of the judge's own answer alone, so that no candidate can bring its verdict along.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.judged_row import JudgedVerdict
from nemo_aligner_cai.models.base import Completion, Request

_SHOWN = 200
"""Characters of an answer that is no verdict."""

# Names of what judgements count.
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


@dataclass(frozen=True)
class JudgeInput:
    """A prompt with its candidate responses, in the order in which they are numbered."""

    id: str
    conversation: Conversation
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One question to the judge. `shown` holds the candidates' numbers in the order of this question."""

    request: Request
    shown: tuple[int, ...]
    principle: str | None = None


@dataclass(frozen=True)
class Answered:
    """A question and what the judge model said."""

    question: Question
    completion: Completion


Turn = Sequence[Answered]
"""The questions of one round, in the order in which they were asked; none where there was nothing to ask."""


@dataclass(frozen=True)
class Verdict:
    """What a judge said of candidates in one order, by one principle, and nothing it did not say.

    Attributes:
        shown: the candidates' numbers in the order in which they were shown.
        principle: its id, None where the whole constitution was shown.
        better: a candidate's number; None where the judge named none, or sees no difference.
        worse: likewise.
        probability: the judge's, in [0, 1], that the first shown candidate is the better one; None where it gave none.
            A fraction where it is a share of votes, so that comparisons with it are exact.
        raw: what the judge wrote.
        explanation: the part of it that gives reasons.
        votes: answers that were sampled for this verdict, 0 where log-probabilities or one answer told.
        unparsed_votes: those of them that name no candidate.
        is_cut: whether the explanation was cut at the token limit.
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
        """Whether the judge's answer says something about the candidates, be it that they are equal."""
        return self.better is not None or self.probability is not None


@dataclass(frozen=True)
class Preference:
    """A comparison worth keeping. `probability` in (0.5, 1] that `chosen` is better; None for a plain choice."""

    chosen: int
    rejected: int
    probability: float | None
    principle: str | None
    explanation: str = ""


@dataclass(frozen=True)
class Judgement:
    """What came of a case: its preferences, the verdicts they rest on, and counts under this module's names."""

    preferences: tuple[Preference, ...]
    verdicts: tuple[Verdict, ...]
    counts: Counter[str] = field(default_factory=Counter[str])


class Judge(Protocol):
    """A strategy: pure functions of a case and of the judge model's completions."""

    @property
    def name(self) -> str:
        """As it is chosen on the command line."""
        ...

    def rounds(self, candidates: int) -> int:
        """How many rounds a case with at most so many candidates can take, at least 1."""
        ...

    def questions(self, case: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """What to ask about a case in the round after these; none where the past rounds have told all."""
        ...

    def decide(self, case: JudgeInput, rounds: Sequence[Turn]) -> Judgement:
        """What the answers of all rounds come to."""
        ...


def count_verdicts(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How verdicts fell, before orders are compared."""
    named = [verdict for verdict in verdicts if verdict.better is not None]
    counts = Counter({VERDICTS: len(named), FIRST: sum(verdict.better == verdict.shown[0] for verdict in named)})
    if votes := sum(verdict.votes for verdict in verdicts):
        counts.update({VOTES: votes, UNPARSED_VOTES: sum(verdict.unparsed_votes for verdict in verdicts)})
    if cut := sum(verdict.is_cut for verdict in verdicts):
        counts[CUT_REASONINGS] = cut
    return counts


def position_rates(counts: Mapping[str, int]) -> dict[str, float | None]:
    """How much a judge's verdicts depend on the order of the candidates; None where nothing tells.

    ``position_flip_rate`` is the share of the pairs, of those with a verdict in both orders, on which the orders name
    different candidates. ``first_position_rate`` is the share of all verdicts that name the candidate shown first.
    """

    def share(part: str, whole: str) -> float | None:
        return counts.get(part, 0) / counts[whole] if counts.get(whole) else None

    return {"position_flip_rate": share(FLIPS, BOTH_ORDERS), "first_position_rate": share(FIRST, VERDICTS)}


def position_line(counts: Mapping[str, int]) -> str:
    """The rates of `position_rates` for people."""
    flips, first = position_rates(counts).values()
    shown = "not known, each pair was asked about in one order" if flips is None else f"{flips:.1%}"
    line = f"position bias: flips {shown}; first position {'not known' if first is None else f'{first:.1%}'}"
    return line if flips is None else line + _against_a_coin(flips, counts[BOTH_ORDERS])


def _against_a_coin(flips: float, pairs: int) -> str:
    """A verdict on a judge: one that guesses names another candidate in the second order for half of the pairs."""
    if flips >= 0.5:
        return f"; flips {flips:.0%}: no better than a coin"
    if flips + 2 * math.sqrt(0.25 / pairs) >= 0.5:
        return f"; flips {flips:.0%} of {pairs} pairs: not told apart from a coin"
    return ""


def unparsed_line(counts: Mapping[str, int], verdicts: Iterable[JudgedVerdict]) -> str | None:
    """One answer that is no verdict, and the flags that help, for people; None where there is none.

    Args:
        counts: under this module's names.
        verdicts: of the rows that were written.
    """
    if not counts.get(UNPARSED):
        return None
    silent = (one for one in verdicts if one.better is None and one.probability is None)
    raw = next((one.raw for one in silent), "")
    return (
        f"no verdict on {counts[UNPARSED]} of {counts[JUDGED]} pairs; one answer: {raw[:_SHOWN]!r}. What can help: "
        "--judge multiple-choice, --judge-structured, --judge-max-tokens, --judge-few-shot-path, another --judge-model"
    )
