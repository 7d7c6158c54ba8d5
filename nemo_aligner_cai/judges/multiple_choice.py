# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Multiple choice: one principle, two candidates, (A) or (B).

Input:  "Consider the following conversation ... {principle} Options: (A) ... (B) ..."
Output: the probability that (A) is better, the softmax of the two answers' log-probabilities (arXiv 2212.08073, 4.1)

If the server returns no log-probabilities, a second turn samples votes: answers at temperature 1, each with its own
seed. The probability is then the share of (A) among the votes that name an option. Only the first answer, which is
journaled, decides if votes are sampled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.judges.base import Verdict
from nemo_aligner_cai.judges.few_shot import choice_examples
from nemo_aligner_cai.judges.pair_judge import PairJudge, PresentationOrder
from nemo_aligner_cai.judges.pairs import Pair
from nemo_aligner_cai.judges.parse import BARE_TOKENS, OBJECT_TOKENS, choice_schema, parse_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Completion, Request, Sampling


@dataclass(frozen=True)
class MultipleChoiceStrategy:
    """A `PairwiseStrategy` that asks for a choice directly."""

    settings: JudgeSettings

    @property
    def max_turns(self) -> int:
        """One turn of log-probabilities, if they are asked for, and one of votes."""
        return 1 + self.settings.logprobs

    def requests(self, order: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """Ask the question, after the few-shot examples."""
        if is_scored(past):
            return []
        templates = self.settings.templates
        few_shots = choice_examples(self.settings.few_shots, order.principle, templates)
        text = templates.question(order.conversation, order.principle, *order.texts)
        conversation = Conversation((*few_shots, *Conversation.of_user(text).messages))
        return choice_requests(self.settings, conversation, past, shared=len(few_shots))

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """Return the verdict of the choice."""
        return choice_verdict(self.settings, shown, principle, past)


def multiple_choice(settings: JudgeSettings) -> PairJudge:
    """One principle per pair, (A) or (B) by log-probabilities, else by votes."""
    return PairJudge("multiple-choice", MultipleChoiceStrategy(settings), settings)


def is_scored(past: Sequence[Sequence[Completion]]) -> bool:
    """Return True if the server returned log-probabilities, so that there is nothing left to ask."""
    return any(completion.choice_logprobs is not None for completions in past for completion in completions)


def choice_requests(
    settings: JudgeSettings, conversation: Conversation, past: Sequence[Sequence[Completion]], *, shared: int
) -> list[Request]:
    """Ask for the choice that answers `conversation`: first its log-probabilities, then votes.

    Args:
        settings: the judge's settings.
        conversation: ends with the question.
        past: the completions of the earlier turns that asked for this choice.
        shared: see `Request`.
    """
    choices = settings.templates.choices
    if settings.logprobs and not past:
        greedy = Sampling(greedy=True, max_tokens=BARE_TOKENS)
        lead = settings.templates.choice_lead
        return [Request(conversation, greedy, choices=choices, lead=lead, shared=shared)]
    sampling = Sampling(temperature=1.0, max_tokens=OBJECT_TOKENS if settings.structured else BARE_TOKENS)
    schema = choice_schema(choices) if settings.structured else None
    return [Request(conversation, sampling, room=settings.max_tokens, shared=shared, schema=schema)] * settings.votes


def choice_verdict(
    settings: JudgeSettings, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]
) -> Verdict:
    """Return the verdict that follows from the completions of `choice_requests`."""
    choices = settings.templates.choices
    unparsed = Verdict(shown, principle, None, None)
    for completions in past[: settings.logprobs]:
        for completion in completions:
            if completion.choice_logprobs is not None:
                scores = [completion.choice_logprobs[choice] for choice in choices]
                return with_probability(replace(unparsed, raw=completion.text), _softmax_of_two(*scores))
    texts = [completion.text for completions in past[settings.logprobs :] for completion in completions]
    parsed = [parse_choice(text, choices) for text in texts]
    counted = replace(unparsed, raw="\n".join(texts), votes=len(parsed), unparsed_votes=parsed.count(None))
    if counted.votes == counted.unparsed_votes:
        return counted
    return with_probability(counted, Fraction(parsed.count(0), counted.votes - counted.unparsed_votes))


def with_probability(verdict: Verdict, p: float | Fraction) -> Verdict:
    """Return the verdict with probability `p` for the candidate shown first, and the decision that follows from it."""
    first, second = verdict.shown
    if p == 0.5:
        return replace(verdict, probability=p)
    better, worse = (first, second) if p > 0.5 else (second, first)
    return replace(verdict, better=better, worse=worse, probability=p)


def _softmax_of_two(first: float, second: float) -> float:
    # 700 is about the largest exponent that math.exp accepts.
    return 1.0 / (1.0 + math.exp(min(700.0, second - first)))
