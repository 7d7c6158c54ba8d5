# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A judge of any number of short answers to one question, as the paper's classification items ask for.

Input:  Case(conversation="... What description best characterizes ...?", candidates=("Theft", "Adult Content", ...))
Output: the answer that the model finds most likely, of "(A)", "(B)", ...

The strategies in `generate/judges/` compare what an assistant said; here the candidates are names of kinds. All are
shown at once, and the most likely letter is taken (arXiv 2212.08073, section 4.1, with more than two answers). Without
log-probabilities, the model is asked once more, for the letter that it writes at temperature 0. In both orders, the
second time in reverse: what the two disagree on is no answer.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution.prompt_templates import without_markup
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
from nemo_aligner_cai.models.base import Request, Sampling

_ROOM = 1024
"""Tokens of a letter that a reasoning model thinks about first."""
_TOKENS = 8
"""Room for a letter in brackets, on servers without log-probabilities."""


@dataclass(frozen=True)
class OptionsJudge:
    """A `Judge`. See the module.

    Attributes:
        both_orders: ask twice, the second time in reverse order.
    """

    both_orders: bool = True
    name: str = "options"

    def rounds(self, candidates: int) -> int:
        """See `Judge`: one that scores, and one for what could not be scored."""
        return 2

    def questions(self, case: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """See `Judge`."""
        if past:
            silent = (answered.question for answered in past[0] if answered.completion.choice_logprobs is None)
            return (
                [replace(one, request=replace(one.request, choices=(), room=_ROOM)) for one in silent]
                if len(past) < 2
                else []
            )
        shown = tuple(range(len(case.candidates)))
        orders = [shown, shown[::-1]] if self.both_orders else [shown]
        return [self._question(case, order) for order in orders]

    def _question(self, case: JudgeInput, order: tuple[int, ...]) -> Question:
        letters = letters_of(len(order))
        options = [f"{letter} {case.candidates[number]}" for letter, number in zip(letters, order, strict=True)]
        instruction = f"Answer with {', '.join(letters[:-1])} or {letters[-1]}, and nothing else."
        asked = "\n".join(turn.content for turn in case.conversation.turns)
        text = without_markup("\n".join([f"{asked}\n\nOptions:", *options]))
        sampling = Sampling(greedy=True, max_tokens=_TOKENS)
        request = Request(Conversation.of_user(f"{text}\n\n{instruction}"), sampling, choices=letters)
        return Question(request, order)

    def decide(self, case: JudgeInput, rounds: Sequence[Turn]) -> Judgement:
        """See `Judge`: the preferences are those of the answer over each other one."""
        written = {answered.question.shown: answered for answered in (rounds[1] if len(rounds) > 1 else ())}
        verdicts = tuple(_verdict(written.get(answered.question.shown, answered)) for answered in rounds[0])
        counts = Counter({JUDGED: 1}) + count_verdicts(verdicts)
        named = {verdict.better for verdict in verdicts}
        if None in named:
            counts[UNPARSED] += 1
            return Judgement((), verdicts, counts)
        if len(verdicts) > 1:
            counts[BOTH_ORDERS] += 1
            counts[FLIPS] += len(named) > 1
        if len(named) > 1:
            counts[TIES] += 1
            return Judgement((), verdicts, counts)
        counts[KEPT] += 1
        (answer,) = named
        others = [number for number in range(len(case.candidates)) if number != answer]
        assert answer is not None, "a verdict without an answer was counted above"
        return Judgement(tuple(Preference(answer, other, None, None) for other in others), verdicts, counts)


def letters_of(count: int) -> tuple[str, ...]:
    """How answers begin: "(A)", "(B)", and so on, for up to 26."""
    return tuple(f"({letter})" for letter in ascii_uppercase[:count])


def _verdict(answered: Answered) -> Verdict:
    order, completion = answered.question.shown, answered.completion
    letters = letters_of(len(order))
    scores = completion.choice_logprobs
    if scores is not None:
        best = max(scores.values())
        likely = [letter for letter in letters if scores[letter] == best]
    else:
        likely = [letter for letter in letters if letter == completion.text.strip().removesuffix(".")]
    better = order[letters.index(likely[0])] if len(likely) == 1 else None
    return Verdict(order, None, better, None, raw=completion.text)
