# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Best and worst: the whole constitution and all candidates at once; the judge names the best and the worst.

Input:  system: the constitution; user: the conversation, "#1: ...", "#2: ...", "#3: ..."
Output: {"chosen": 2, "rejected": 3} and an explanation below it

What upstream's script asks. It is one call for each order, whatever the number of candidates, but it gives no
probability; and where the paper samples one principle for each comparison, this judge has them all before it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import (
    BOTH_ORDERS,
    FLIPS,
    JUDGED,
    KEPT,
    TIES,
    UNPARSED,
    Answered,
    JudgeInput,
    Judgement,
    Preference,
    Question,
    Turn,
    Verdict,
    count_verdicts,
)
from nemo_aligner_cai.judges.few_shot import FewShots
from nemo_aligner_cai.judges.parse import best_worst_schema, parse_best_worst
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Request, Sampling


@dataclass(frozen=True)
class BestWorst:
    """A `Judge`. See the module.

    Attributes:
        system: the constitution, with the instruction to answer ``{"chosen": <number>, "rejected": <number>}``.
        wording: how the candidates are shown.
        both_orders: ask twice, the second time in reverse order.
        shots: examples before the question.
        structured: let the server hold the answer to a JSON schema.
        max_tokens: length of the answer with its explanation.
    """

    system: str
    wording: PromptTemplates
    both_orders: bool = True
    shots: FewShots = field(default_factory=FewShots)
    structured: bool = False
    max_tokens: int = 1024
    name: str = "best-worst"

    def rounds(self, candidates: int) -> int:
        """See `Judge`: one."""
        return 1

    def questions(self, case: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """See `Judge`."""
        if past:
            return []
        shown = tuple(range(len(case.candidates)))
        orders = [shown, shown[::-1]] if self.both_orders else [shown]
        return [self._question(case, order) for order in orders]

    def _question(self, case: JudgeInput, order: tuple[int, ...]) -> Question:
        before = (Message(Role.SYSTEM, self.system), *self.shots.for_best_worst(self.wording))
        text = self.wording.options(case.conversation, [case.candidates[number] for number in order])
        request = Request(
            Conversation((*before, Message(Role.USER, text))),
            Sampling(greedy=True, max_tokens=self.max_tokens),
            shared=len(before),
            schema=best_worst_schema(len(order)) if self.structured else None,
        )
        return Question(request, order)

    def decide(self, case: JudgeInput, rounds: Sequence[Turn]) -> Judgement:
        """See `Judge`."""
        verdicts = tuple(_verdict(answered) for answered in rounds[0])
        counts = Counter({JUDGED: 1}) + count_verdicts(verdicts)
        preference = _agreed(verdicts, counts)
        counts[KEPT] += preference is not None
        return Judgement(() if preference is None else (preference,), verdicts, counts)


def best_worst(settings: JudgeSettings) -> BestWorst:
    """The whole constitution, the best and the worst of all candidates (what upstream's script asks)."""
    if settings.margin:
        raise UsageError("judge: best-worst gives no probabilities, so there is no margin; choose another strategy")
    settings.shots.for_best_worst(settings.wording)
    system = settings.system
    if system is None:
        system = settings.wording.constitution(settings.principles)
    return BestWorst(
        system, settings.wording, settings.both_orders, settings.shots, settings.structured, settings.max_tokens
    )


def _verdict(answered: Answered) -> Verdict:
    shown, text = answered.question.shown, answered.completion.text
    best, worst, explanation = parse_best_worst(text, len(shown))
    if best is None or worst is None:
        return Verdict(shown, None, None, None, raw=text)
    return Verdict(shown, None, shown[best], shown[worst], raw=text, explanation=explanation)


def _agreed(verdicts: Sequence[Verdict], counts: Counter[str]) -> Preference | None:
    """The preference on which all orders agree, None where there is none; counts why."""
    if not all(verdict.is_parsed for verdict in verdicts):
        counts[UNPARSED] += 1
        return None
    named = {(verdict.better, verdict.worse) for verdict in verdicts}
    if len(verdicts) > 1:
        counts[BOTH_ORDERS] += 1
        counts[FLIPS] += len(named) > 1
    if len(named) > 1:
        counts[TIES] += 1
        return None
    better, worse = verdicts[0].better, verdicts[0].worse
    assert better is not None and worse is not None, "a parsed verdict of this judge names two"
    return Preference(better, worse, None, None, verdicts[0].explanation)
