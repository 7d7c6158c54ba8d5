# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What tests of judges have in common: a constitution, a case, and judge models that are functions."""

import math
from collections.abc import Callable
from typing import Any

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.judges.base import Answer, Judge, JudgeInput, Judgment
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import Completion, Request

PRINCIPLES = Constitution(tuple(Principle(f"p{n}", "", "", f"Which is better by rule {n}?") for n in range(4)), "four")
CASE = JudgeInput("id1", Conversation.of_user("a question"), ("good answer", "bad answer", "middling answer"))
_WORTH = {"good": 3, "midd": 2, "bad ": 1}


def settings(**given: Any) -> JudgeSettings:
    """The settings of a judge that compares one pair by one of the principles."""
    defaults: dict[str, Any] = {"seed": 1, "pairs": "one"}
    return JudgeSettings(constitution=PRINCIPLES, **defaults | given)


def scored(p_first: float) -> Completion:
    """The judge's probability for "(A)", together with some mass for other answers."""
    scores = {"(A)": math.log(p_first * 0.8), "(B)": math.log((1 - p_first) * 0.8)}
    return Completion("", "choices", choice_logprobs=scores)


def by_worth(request: Request, *, p: float = 0.9) -> Completion:
    """A judge that reads which option is the better one."""
    text = request.conversation.messages[-1].content
    a, b = text.index("(A) "), text.index("(B) ")
    return scored(p if _WORTH[text[a + 4 : a + 8]] > _WORTH[text[b + 4 : b + 8]] else 1 - p)


def decide(judge: Judge, answer: Callable[[Request], Completion], judge_input: JudgeInput = CASE) -> Judgment:
    """Put all rounds of a judge's questions to a function."""
    turns: list[list[Answer]] = []
    for _ in range(judge.max_turns(len(judge_input.candidates))):
        turns.append([Answer(q, answer(q.request)) for q in judge.questions(judge_input, turns)])
    return judge.decide(judge_input, turns)
