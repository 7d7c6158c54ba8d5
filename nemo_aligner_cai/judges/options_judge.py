# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A judge of any number of short answers to one question, for the paper's classification items.

Input:  JudgeInput(conversation="... What description best characterizes ...?", candidates=("Theft", "Adult Content"))
Output: the answer to which the model assigns the highest probability, of "(A)", "(B)", ...

The other strategies compare responses of an assistant; here the candidates are category names. All are shown at once,
and the most likely letter is taken (arXiv 2212.08073, section 4.1, with more than two answers). Without
log-probabilities, a second turn asks for the letter at temperature 0. No text can add an option: further lines of an
option are indented, and so are lines of the question that look like one. With `both_orders`, the options are also
shown in reverse; if the two orders disagree, there is no answer.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemo_aligner_cai.chat import JUDGED_TOKENS, Conversation
from nemo_aligner_cai.constitution.prompt_templates import INDENT, continued
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
from nemo_aligner_cai.judges.parse import BARE_TOKENS, letter_instruction, letters, most_likely, parse_choice
from nemo_aligner_cai.models.base import ROOM, Request, Sampling

_OPTION_LINE = re.compile(r"(?:^|(?<=[\v\f\r\x1c-\x1e\x85\u2028\u2029]))(?=\([A-Z]+\)|Options:)", re.MULTILINE)
"""The start of such a line. The other lines of published questions are asked as published."""


@dataclass(frozen=True)
class OptionsJudge:
    """A `Judge` that answers a multiple-choice question; `both_orders` also shows the options in reverse."""

    both_orders: bool = True
    name: str = "options"

    def max_turns(self, candidates: int) -> int:
        """One turn of log-probabilities, and one of text for questions without them."""
        return 2

    def questions(self, judge_input: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """Ask once per order for log-probabilities, then for the letter where there were none."""
        if not past:
            orders = presentation_orders(len(judge_input.candidates), both_orders=self.both_orders)
            return [_question(judge_input, order) for order in orders]
        if len(past) > 1:
            return []
        unscored = (answer.question for answer in past[0] if answer.completion.choice_logprobs is None)
        return [replace(one, request=replace(one.request, choices=(), room=ROOM)) for one in unscored]

    def decide(self, judge_input: JudgeInput, turns: Sequence[Turn]) -> Judgment:
        """Prefer the answer on which all orders agree over each other candidate."""
        written = {answer.question.shown: answer for answer in (turns[1] if len(turns) > 1 else ())}
        verdicts = tuple(_verdict(written.get(answer.question.shown, answer)) for answer in turns[0])
        counts = Counter({JUDGED: 1}) + count_verdicts(verdicts)
        agreed = agreed_choice([verdict.better for verdict in verdicts], counts)
        others = (number for number in range(len(judge_input.candidates)) if number != agreed)
        preferences = () if agreed is None else tuple(Preference(agreed, other, None, None) for other in others)
        return Judgment(preferences, verdicts, counts)


def _question(judge_input: JudgeInput, order: tuple[int, ...]) -> Question:
    choices = letters(len(order))
    texts = [continued(judge_input.candidates[number]) for number in order]
    options = [f"{choice} {text}" for choice, text in zip(choices, texts, strict=True)]
    asked = "\n".join(turn.content for turn in judge_input.conversation.turns)
    asked = _OPTION_LINE.sub(INDENT, asked)
    text = JUDGED_TOKENS.escape("\n".join([f"{asked}\n\nOptions:", *options]))
    sampling = Sampling(greedy=True, max_tokens=BARE_TOKENS)
    question = Conversation.of_user(f"{text}\n\n{letter_instruction(choices)}")
    return Question(Request(question, sampling, choices=choices), order)


def _verdict(answer: Answer) -> Verdict:
    order, completion = answer.question.shown, answer.completion
    choices, scores = letters(len(order)), completion.choice_logprobs
    position = parse_choice(completion.text, choices) if scores is None else most_likely(scores, choices)
    better = None if position is None else order[position]
    return Verdict(order, None, better, None, raw=completion.text)
