# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Multiple choice: one principle, two candidates, (A) or (B).

Input:  "Consider the following conversation ... {principle} Options: (A) ... (B) ..."
Output: the probability that (A) is better, the softmax of the two answers' log-probabilities (arXiv 2212.08073, 4.1)

A server that gives no log-probabilities is asked again, for votes: answers sampled at temperature 1 with a seed each;
the probability is the share of those that name (A), among those that name one. Whether votes are asked for depends on
the first answer alone, which is in the journal like every other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.judges.base import Verdict
from nemo_aligner_cai.judges.few_shot import FewShots
from nemo_aligner_cai.judges.pair_judge import PairJudge, PresentationOrder
from nemo_aligner_cai.judges.pairs import Pair
from nemo_aligner_cai.judges.parse import choice_schema, parse_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Completion, Request, Sampling

_BARE_TOKENS, _OBJECT_TOKENS = 8, 32
"""Room for an answer that is a choice, bare or in its JSON object."""


@dataclass(frozen=True)
class Choosing:
    """How a model is made to choose between two answers: one round that scores, and one of votes where it could not.

    Attributes:
        choices: the answers; the first stands for the candidate that is shown first.
        lead: what an answer begins with before its choice, where the server can be told so.
        logprobs: whether there is a round that scores.
        votes: how many answers are sampled.
        structured: let the server hold the votes to a JSON schema.
        room: the most tokens of a vote that a reasoning model thinks about first.
    """

    choices: tuple[str, str]
    lead: str
    logprobs: bool
    votes: int
    structured: bool
    room: int

    @classmethod
    def of(cls, settings: JudgeSettings) -> "Choosing":
        """As the settings say."""
        wording = settings.wording
        return cls(
            wording.choices,
            wording.choice_lead,
            settings.logprobs,
            settings.votes,
            settings.structured,
            settings.max_tokens,
        )

    @property
    def rounds(self) -> int:
        """The most rounds that it takes."""
        return 1 + self.logprobs

    @staticmethod
    def is_told(past: Sequence[Sequence[Completion]]) -> bool:
        """Whether nothing more is to be asked: the server gave log-probabilities."""
        return any(completion.choice_logprobs is not None for completions in past for completion in completions)

    def requests(
        self, conversation: Conversation, past: Sequence[Sequence[Completion]], *, shared: int = 0
    ) -> list[Request]:
        """What to ask after these rounds, if they are not enough; `shared` as in `Request`."""
        if self.logprobs and not past:
            greedy = Sampling(greedy=True, max_tokens=_BARE_TOKENS)
            return [Request(conversation, greedy, choices=self.choices, lead=self.lead, shared=shared)]
        sampling = Sampling(temperature=1.0, max_tokens=_OBJECT_TOKENS if self.structured else _BARE_TOKENS)
        schema = choice_schema(self.choices) if self.structured else None
        return [Request(conversation, sampling, room=self.room, shared=shared, schema=schema)] * self.votes

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """What the answers come to."""
        nothing = Verdict(shown, principle, None, None)
        for completions in past[: self.logprobs]:
            for completion in completions:
                if completion.choice_logprobs is not None:
                    scores = [completion.choice_logprobs[choice] for choice in self.choices]
                    return with_probability(replace(nothing, raw=completion.text), softmax_of_two(*scores))
        texts = [completion.text for completions in past[self.logprobs :] for completion in completions]
        parsed = [parse_choice(text, self.choices) for text in texts]
        counted = replace(nothing, raw="\n".join(texts), votes=len(parsed), unparsed_votes=parsed.count(None))
        if counted.votes == counted.unparsed_votes:
            return counted
        return with_probability(counted, Fraction(parsed.count(0), counted.votes - counted.unparsed_votes))


@dataclass(frozen=True)
class MultipleChoiceStrategy:
    """A `PairwiseStrategy` that puts the question and takes the choice."""

    wording: PromptTemplates
    shots: FewShots
    choosing: Choosing

    @property
    def rounds(self) -> int:
        """See `PairwiseStrategy`."""
        return self.choosing.rounds

    def requests(self, showing: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """See `PairwiseStrategy`."""
        if self.choosing.is_told(past):
            return []
        before = self.shots.for_choice(showing.principle, self.wording)
        text = self.wording.question(showing.conversation, showing.principle, *showing.texts)
        conversation = Conversation((*before, *Conversation.of_user(text).messages))
        return self.choosing.requests(conversation, past, shared=len(before))

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """See `PairwiseStrategy`."""
        return self.choosing.verdict(shown, principle, past)


def multiple_choice_ballot(settings: JudgeSettings) -> MultipleChoiceStrategy:
    """The ballot that these settings describe."""
    return MultipleChoiceStrategy(settings.wording, settings.shots, Choosing.of(settings))


def multiple_choice(settings: JudgeSettings) -> PairJudge:
    """One principle per pair, (A) or (B) by log-probabilities, else by votes."""
    return PairJudge(
        "multiple-choice",
        settings.principles,
        multiple_choice_ballot(settings),
        settings.seed,
        settings.pairs,
        settings.both_orders,
        settings.margin,
    )


def with_probability(verdict: Verdict, p: float | Fraction) -> Verdict:
    """The verdict with the probability that the first shown candidate is better, and with what follows from it."""
    first, second = verdict.shown
    if p == 0.5:
        return replace(verdict, probability=p)
    better, worse = (first, second) if p > 0.5 else (second, first)
    return replace(verdict, better=better, worse=worse, probability=p)


def softmax_of_two(first: float, second: float) -> float:
    """The first one's probability, of two log-probabilities: what a judge says if it has to say one of the two."""
    return 1.0 / (1.0 + math.exp(min(700.0, second - first)))
