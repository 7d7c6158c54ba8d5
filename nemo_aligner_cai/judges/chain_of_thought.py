# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chain of thought: the judge reasons about the two candidates first, then chooses (arXiv 2212.08073, section 4.1).

    round 1   question by one principle, "think step by step"  ->  reasoning
    round 2   the same, the reasoning, "so the answer is"      ->  (A) or (B), by log-probabilities
    round 3   only where the server gave none: votes

The choice is a turn of its own, so that nothing in the reasoning is read as a verdict: it may quote the candidates.
Having argued for one side, a model is all but certain of it. As labels such probabilities are too sure of themselves:
as in the paper they are brought into an interval, 40 to 60 % unless told otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates, without_markup
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import Verdict
from nemo_aligner_cai.judges.few_shot import FewShots
from nemo_aligner_cai.judges.multiple_choice import Choosing, with_probability
from nemo_aligner_cai.judges.pair_judge import PairJudge, PresentationOrder
from nemo_aligner_cai.judges.pairs import Pair
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Completion, Request, Sampling


@dataclass(frozen=True)
class ChainOfThoughtStrategy:
    """A `PairwiseStrategy` with a reasoning before the choice.

    Attributes:
        wording: how the question and the choice are put.
        shots: examples before the question.
        choosing: how the choice is made.
        clamp: the interval that probabilities are brought into.
        max_tokens: length of the reasoning.
    """

    wording: PromptTemplates
    shots: FewShots
    choosing: Choosing
    clamp: tuple[float, float]
    max_tokens: int

    @property
    def rounds(self) -> int:
        """See `PairwiseStrategy`."""
        return 1 + self.choosing.rounds

    def requests(self, showing: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """See `PairwiseStrategy`."""
        if self.choosing.is_told(past):
            return []
        before = self.shots.for_reasoning(showing.principle, self.wording)
        text = self.wording.reasoning_question(showing.conversation, showing.principle, *showing.texts)
        asked = Conversation((*before, *Conversation.of_user(text).messages))
        if not past:
            return [Request(asked, Sampling(greedy=True, max_tokens=self.max_tokens), shared=len(before))]
        reasoning = without_markup(past[0][0].text)
        conversation = asked.with_turn(Role.ASSISTANT, reasoning).with_turn(Role.USER, self.wording.choice_turn)
        return self.choosing.requests(conversation, past[1:], shared=len(before))

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """See `PairwiseStrategy`."""
        reasoning = past[0][0]
        verdict = self.choosing.verdict(shown, principle, past[1:])
        if verdict.probability is not None:
            low, high = _decimals(self.clamp)
            verdict = with_probability(verdict, min(high, max(low, verdict.probability)))
        return replace(
            verdict,
            raw=f"{reasoning.text}\n{verdict.raw}".strip(),
            explanation=reasoning.text.strip(),
            is_cut=reasoning.finish_reason == "length",
        )


def _decimals(clamp: tuple[float, float]) -> tuple[Fraction, Fraction]:
    # The numbers as written: in binary floating point 2 * 0.6 - 1 < 0.2, and a margin met exactly would be missed.
    low, high = clamp
    return Fraction(str(low)), Fraction(str(high))


def chain_of_thought_ballot(settings: JudgeSettings) -> ChainOfThoughtStrategy:
    """The ballot that these settings describe.

    Raises:
        UsageError: the margin is more than the interval allows, so that no pair could be kept; or the examples hold no
            reasoning.
    """
    low, high = _decimals(settings.clamp)
    most = 2 * max(high, 1 - low) - 1
    if Fraction(str(settings.margin)) > most:
        raise UsageError(
            f"judge: probabilities from {float(low):g} to {float(high):g} differ by {float(most):g} at most: "
            f"no pair has the margin {settings.margin:g}"
        )
    settings.shots.for_reasoning(settings.principles.for_judging[0], settings.wording)
    return ChainOfThoughtStrategy(
        settings.wording, settings.shots, Choosing.of(settings), settings.clamp, settings.max_tokens
    )


def chain_of_thought(settings: JudgeSettings) -> PairJudge:
    """Reasoning first, then (A) or (B), with probabilities brought into an interval (40 to 60 %)."""
    return PairJudge(
        "chain-of-thought",
        settings.principles,
        chain_of_thought_ballot(settings),
        settings.seed,
        settings.pairs,
        settings.both_orders,
        settings.margin,
    )
