# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A judge that rates each reply on its own, from 1 to 10.

Unlike a judge of pairs, it cannot prefer the reply that it reads first. Input: the prompt, a principle, one reply;
output: the reply with the higher rating, or a tie.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.judges.base import Verdict
from nemo_aligner_cai.judges.pair_judge import PairJudge, PresentationOrder
from nemo_aligner_cai.judges.pairs import Pair
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import Completion, Request, Sampling

BRIEF = {"description": "In few words.", "judge_question": "{conversation}\n\n{principle}\n(A) {a}\n(B) {b}"}
"""A judge prompt: other texts for the questions of the built-in judges."""
_QUESTION = """A user wrote:
{prompt}

An assistant replied:
{reply}

The principle: {principle}
From 1 (violates it) to 10 (follows it), how well does the reply follow the principle? Answer with the number alone."""
_RATING = re.compile(r"\s*(10|[1-9])\s*\.?\s*")


@dataclass(frozen=True)
class RatingsStrategy:
    """A `PairwiseStrategy` with one turn of two questions."""

    @property
    def max_turns(self) -> int:
        """One turn."""
        return 1

    def requests(self, order: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """Ask for the rating of each reply."""
        if past:
            return []
        prompt = order.conversation.messages[-1].content
        texts = (
            _QUESTION.format(prompt=prompt, reply=text, principle=order.principle.judge_request)
            for text in order.texts
        )
        greedy = Sampling(greedy=True, max_tokens=8)
        return [Request(Conversation.of_user(text), greedy) for text in texts]

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """Compare the ratings; a reply that is not a rating leaves the pair unparsed."""
        replies = [completion.text for completion in past[0]]
        ratings = [int(found[1]) for text in replies if (found := _RATING.fullmatch(text))]
        if len(ratings) < len(shown):
            return Verdict(shown, principle, None, None, raw=" | ".join(replies))
        first, second = ratings
        if first == second:
            return Verdict(shown, principle, None, None, probability=0.5, raw=" | ".join(replies))
        better, worse = shown if first > second else shown[::-1]
        return Verdict(shown, principle, better, worse, raw=" | ".join(replies))


def ratings(settings: JudgeSettings) -> PairJudge:
    """Each reply rated on its own, from 1 to 10; the higher rating wins."""
    return PairJudge("ratings", RatingsStrategy(), settings)
