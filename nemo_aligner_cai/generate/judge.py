# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Judges: which of a prompt's candidate responses is better by the constitution.

Input:  Case(id, conversation, candidates=("I can help ...", "No, because ..."))
Output: Judgement(preferences=(Preference(chosen=1, rejected=0, probability=0.93, principle="crime"),), counts)

Two strategies. `MultipleChoice` shows one principle and two candidates, and takes the probabilities of the answers
"(A)" and "(B)" (arXiv 2212.08073, section 4.1). `BestWorst` shows the whole constitution and all candidates, and asks
for the best and the worst (what upstream's script does). Both show the candidates in both orders unless told not to:
a pair on which the two orders disagree is a tie, counted and left out.

Nothing is guessed. What the judge said is a verdict, a tie, or *unparsed* with the raw text kept; and it is read out
of the judge's own answer alone, so that no candidate can bring its verdict along.
"""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, Protocol, cast

from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.conversation import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.generate.seeds import derive_seed, generator
from nemo_aligner_cai.generate.wording import PromptWording
from nemo_aligner_cai.models.base import Completion, Request, Sampling

Pairs = Literal["one", "all", "best-worst"]

# Names of what judgements count.
JUDGED, KEPT, TIES, UNSURE, UNPARSED = (
    "pairs judged",
    "pairs kept",
    "pairs on which the two orders disagree",
    "pairs below the margin",
    "pairs without a verdict",
)
BOTH_ORDERS, FLIPS = "pairs with a verdict in both orders", "position flips"
VERDICTS, FIRST = "verdicts", "verdicts for the first position"


@dataclass(frozen=True)
class Case:
    """A prompt with its candidate responses, in the order in which they are shown."""

    id: str
    conversation: Conversation
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """One question to the judge. `shown` holds the candidates' numbers in the order of this question."""

    request: Request
    shown: tuple[int, ...]
    principle: str | None


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one question, and nothing it did not say.

    `better` and `worse` are candidates' numbers, None where the judge named none (`raw` then holds its text).
    `probability` is the judge's probability in [0, 1] that the first shown candidate is the better one; None where the
    server gave no log-probabilities.
    """

    better: int | None
    worse: int | None
    probability: float | None = None
    raw: str = ""


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

    def questions(self, case: Case) -> list[Question]:
        """What to ask about a case."""
        ...

    def decide(self, case: Case, questions: Sequence[Question], completions: Sequence[Completion]) -> Judgement:
        """What the answers to these questions come to."""
        ...


@dataclass(frozen=True)
class MultipleChoice:
    """One principle, two candidates, (A) or (B). See the module.

    Attributes:
        constitution: the principles with a judge request; one is drawn per pair, the same for both orders.
        wording: how the question is put.
        seed: the run's.
        pairs: "one" judges two candidates, "all" keeps every pair, "best-worst" judges all pairs and keeps the pair
            of the candidates that win most and least.
        both_orders: ask twice with the candidates exchanged.
        margin: least distance of the two probabilities, ``|2 p - 1|``, for a pair to be kept.
        max_tokens: length of the answer on servers without log-probabilities.
    """

    constitution: Constitution
    wording: PromptWording
    seed: int
    pairs: Pairs = "one"
    both_orders: bool = True
    margin: float = 0.0
    max_tokens: int = 8
    name: str = "multiple-choice"

    def __post_init__(self) -> None:
        """Raises UsageError for settings that cannot work."""
        if not self.constitution.for_judging:
            raise UsageError(f"the constitution {self.constitution.name!r} has no judge requests")
        if not 0.0 <= self.margin < 1.0:
            raise UsageError(f"the margin must be in [0, 1), it is {self.margin}")

    def questions(self, case: Case) -> list[Question]:
        """See `Judge`."""
        pairs = list(combinations(range(len(case.candidates)), 2))
        if self.pairs == "one":
            # Of the shuffled candidates any two are a random pair; orders are exchanged half of the time.
            pairs = [generator(self.seed, case.id, "pair").choice(pairs)]
        questions: list[Question] = []
        for a, b in pairs:
            principle = self._principle(case.id, a, b)
            questions.append(self._question(case, principle, a, b))
            if self.both_orders:
                questions.append(self._question(case, principle, b, a))
        return questions

    def _principle(self, case_id: str, a: int, b: int) -> Principle:
        # The highest draw wins, so that a new principle takes over a share of the pairs and leaves the others alone.
        return max(
            self.constitution.for_judging,
            key=lambda principle: derive_seed(self.seed, case_id, "judge", a, b, principle.id),
        )

    def _question(self, case: Case, principle: Principle, a: int, b: int) -> Question:
        text = self.wording.question(case.conversation, principle, case.candidates[a], case.candidates[b])
        sampling = Sampling(greedy=True, max_tokens=self.max_tokens)
        request = Request(Conversation.of_user(text), sampling, choices=self.wording.choices)
        return Question(request, (a, b), principle.id)

    def decide(self, case: Case, questions: Sequence[Question], completions: Sequence[Completion]) -> Judgement:
        """See `Judge`."""
        verdicts = [
            choice_verdict(question, completion, self.wording.choices)
            for question, completion in zip(questions, completions, strict=True)
        ]
        counts = _count(verdicts)
        by_pair: dict[tuple[int, ...], list[int]] = {}
        for number, question in enumerate(questions):
            by_pair.setdefault(tuple(sorted(question.shown)), []).append(number)
        kept: list[Preference] = []
        for numbers in by_pair.values():
            shown = [questions[number].shown for number in numbers]
            preference = _agreed([verdicts[n] for n in numbers], shown, questions[numbers[0]].principle, counts)
            if preference is None:
                continue
            if preference.probability is not None and 2 * preference.probability - 1 < self.margin:
                counts[UNSURE] += 1
                continue
            kept.append(preference)
        if self.pairs == "best-worst":
            kept = _extremes(kept, len(case.candidates))
        counts[KEPT] += len(kept)
        return Judgement(tuple(kept), tuple(verdicts), counts)


@dataclass(frozen=True)
class BestWorst:
    """The whole constitution, all candidates, the best and the worst of them. See the module.

    Attributes:
        system: the constitution, with the instruction to answer ``{"chosen": <number>, "rejected": <number>}``.
        wording: how the candidates are shown.
        both_orders: ask twice, the second time in reverse order.
        sampling: how the judge's answer is drawn.
    """

    system: str
    wording: PromptWording
    both_orders: bool = True
    sampling: Sampling = field(default_factory=lambda: Sampling(greedy=True, max_tokens=1024))
    name: str = "best-worst"

    def questions(self, case: Case) -> list[Question]:
        """See `Judge`."""
        shown = tuple(range(len(case.candidates)))
        orders = [shown, shown[::-1]] if self.both_orders else [shown]
        return [self._question(case, order) for order in orders]

    def _question(self, case: Case, order: tuple[int, ...]) -> Question:
        text = self.wording.options(case.conversation, [case.candidates[number] for number in order])
        conversation = Conversation((Message(Role.SYSTEM, self.system), Message(Role.USER, text)))
        return Question(Request(conversation, self.sampling, shared=1), order, None)

    def decide(self, case: Case, questions: Sequence[Question], completions: Sequence[Completion]) -> Judgement:
        """See `Judge`."""
        parsed = [parse_best_worst(completion.text, len(case.candidates)) for completion in completions]
        verdicts = [
            Verdict(question.shown[best], question.shown[worst], raw=completion.text)
            if best is not None and worst is not None
            else Verdict(None, None, raw=completion.text)
            for question, completion, (best, worst, _) in zip(questions, completions, parsed, strict=True)
        ]
        counts = _count(verdicts)
        preference = _agreed(verdicts, [question.shown for question in questions], None, counts)
        if preference is None:
            return Judgement((), tuple(verdicts), counts)
        counts[KEPT] += 1
        explained = Preference(preference.chosen, preference.rejected, None, None, explanation=parsed[0][2])
        return Judgement((explained,), tuple(verdicts), counts)


def choice_verdict(question: Question, completion: Completion, choices: tuple[str, str]) -> Verdict:
    """The verdict on two candidates: by log-probabilities, else by an answer that is one of the choices."""
    first, second = question.shown
    scores = completion.choice_logprobs
    if scores is not None:
        # Softmax over the two: what the judge would say if it had to say one of them.
        p = 1.0 / (1.0 + math.exp(min(700.0, scores[choices[1]] - scores[choices[0]])))
        if p == 0.5:
            return Verdict(None, None, p, completion.text)
        better, worse = (first, second) if p > 0.5 else (second, first)
        return Verdict(better, worse, p, completion.text)
    answer = completion.text.strip().rstrip(".")
    if answer == choices[0]:
        return Verdict(first, second, raw=completion.text)
    if answer == choices[1]:
        return Verdict(second, first, raw=completion.text)
    return Verdict(None, None, raw=completion.text)


_OBJECT = re.compile(r"\s*(?:```\w*\s*)?(\{)")
_NUMBER = re.compile(r"\s*#?(\d+)\s*")


def parse_best_worst(text: str, count: int) -> tuple[int | None, int | None, str]:
    """(best, worst, explanation) with 0-based positions out of a judge's answer; (None, None, "") where it is unclear.

    The answer has to begin with the object (a code fence may stand before it): further down, it may quote candidates.
    JSON and Python's way of writing a dict are understood, since judges mix them up.
    """
    start = _OBJECT.match(text)
    if start is None:
        return None, None, ""
    body = text[start.start(1) :]
    values, length = _object(body)
    best, worst = (_position(values.get(key), count) for key in ("chosen", "rejected"))
    if best is None or worst is None or best == worst:
        return None, None, ""
    return best, worst, body[length:].strip().removeprefix("```").strip()


def _object(body: str) -> tuple[dict[str, Any], int]:
    """The JSON object or Python dict at the start of a text, and its length; ({}, 0) where there is none."""
    try:
        values, length = json.JSONDecoder().raw_decode(body)
    except ValueError:
        length = body.find("}") + 1
        try:
            values = ast.literal_eval(body[:length])
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return {}, 0
    return (cast(dict[str, Any], values), length) if isinstance(values, dict) else ({}, 0)


def _position(value: Any, count: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    match = _NUMBER.fullmatch(str(value))
    number = int(match[1]) if match else 0
    return number - 1 if 1 <= number <= count else None


def _count(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How verdicts fell, before orders are compared."""
    return Counter({VERDICTS: sum(verdict.better is not None for verdict in verdicts)})


def _agreed(
    verdicts: Sequence[Verdict], shown: Sequence[tuple[int, ...]], principle: str | None, counts: Counter[str]
) -> Preference | None:
    """The preference on which all orders agree, None where they do not; counts why."""
    counts[JUDGED] += 1
    counts[FIRST] += sum(
        verdict.better is not None and verdict.better == order[0]
        for verdict, order in zip(verdicts, shown, strict=True)
    )
    if any(verdict.better is None and verdict.probability is None for verdict in verdicts):
        counts[UNPARSED] += 1
        return None
    named = {(verdict.better, verdict.worse) for verdict in verdicts}
    if len(verdicts) > 1:
        counts[BOTH_ORDERS] += 1
        counts[FLIPS] += len(named) > 1
    better, worse = named.pop()
    if named or better is None or worse is None:
        counts[TIES] += 1
        return None
    probabilities = [
        verdict.probability if order[0] == better else 1 - verdict.probability
        for verdict, order in zip(verdicts, shown, strict=True)
        if verdict.probability is not None
    ]
    mean = sum(probabilities) / len(probabilities) if probabilities else None
    return Preference(better, worse, mean, principle)


def _extremes(preferences: Sequence[Preference], count: int) -> list[Preference]:
    """The preference between the candidates that win most and least, if they were told apart."""
    wins = [0.0] * count
    for preference in preferences:
        p = 1.0 if preference.probability is None else preference.probability
        wins[preference.chosen] += p
        wins[preference.rejected] -= p
    best, worst = max(range(count), key=wins.__getitem__), min(range(count), key=wins.__getitem__)
    return [one for one in preferences if (one.chosen, one.rejected) == (best, worst)]
