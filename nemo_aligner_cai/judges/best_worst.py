# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Best and worst: the whole constitution and all candidates at once; the judge names the best and the worst.

Input:  system: the constitution; user: the conversation, "#1: ...", "#2: ...", "#3: ..."
Output: {"chosen": 2, "rejected": 3} and an explanation below it

This is the question of upstream's script: one call per order for any number of candidates, but no probability. The
paper instead samples one principle for each comparison; this judge sees all of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import (
    JUDGED,
    Answer,
    JudgeInput,
    Judgment,
    Preference,
    Question,
    Turn,
    Verdict,
    agreed_choice,
    count_verdicts,
    presentation_orders,
)
from nemo_aligner_cai.judges.few_shot import best_worst_examples
from nemo_aligner_cai.judges.parse import best_worst_schema, parse_best_worst
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Request, Sampling


@dataclass(frozen=True)
class BestWorst:
    """A `Judge` that ranks all candidates in one question.

    `system` is the system message: the constitution, and the instruction to answer
    ``{"chosen": <number>, "rejected": <number>}``.
    """

    system: str
    settings: JudgeSettings
    name: str = "best-worst"

    def max_turns(self, candidates: int) -> int:
        """One turn for any number of candidates."""
        return 1

    def questions(self, judge_input: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """Ask once per order."""
        if past:
            return []
        orders = presentation_orders(len(judge_input.candidates), both_orders=self.settings.both_orders)
        return [self._question(judge_input, order) for order in orders]

    def _question(self, judge_input: JudgeInput, order: tuple[int, ...]) -> Question:
        templates = self.settings.templates
        before = (Message(Role.SYSTEM, self.system), *best_worst_examples(self.settings.few_shots, templates))
        text = templates.options(judge_input.conversation, [judge_input.candidates[number] for number in order])
        request = Request(
            Conversation((*before, Message(Role.USER, text))),
            Sampling(greedy=True, max_tokens=self.settings.max_tokens),
            shared=len(before),
            schema=best_worst_schema(len(order)) if self.settings.structured else None,
        )
        return Question(request, order)

    def decide(self, judge_input: JudgeInput, turns: Sequence[Turn]) -> Judgment:
        """Keep the best and the worst candidate if all orders agree on both."""
        verdicts = tuple(_verdict(answer) for answer in turns[0])
        counts = Counter({JUDGED: 1}) + count_verdicts(verdicts)
        agreed = agreed_choice([_choice(verdict) for verdict in verdicts], counts)
        preferences = () if agreed is None else (Preference(*agreed, None, None, verdicts[0].explanation),)
        return Judgment(preferences, verdicts, counts)


def best_worst(settings: JudgeSettings) -> BestWorst:
    """The whole constitution, the best and the worst of all candidates (what upstream's script asks)."""
    if settings.margin:
        raise UsageError("judge: best-worst gives no probabilities, so it has no margin; choose another strategy")
    best_worst_examples(settings.few_shots, settings.templates)
    system = settings.system
    if system is None:
        system = settings.templates.constitution(settings.required_constitution)
    return BestWorst(system, settings)


def _verdict(answer: Answer) -> Verdict:
    shown, text = answer.question.shown, answer.completion.text
    best, worst, explanation = parse_best_worst(text, len(shown))
    if best is None or worst is None:
        return Verdict(shown, None, None, None, raw=text)
    return Verdict(shown, None, shown[best], shown[worst], raw=text, explanation=explanation)


def _choice(verdict: Verdict) -> tuple[int, int] | None:
    return None if verdict.better is None or verdict.worse is None else (verdict.better, verdict.worse)
