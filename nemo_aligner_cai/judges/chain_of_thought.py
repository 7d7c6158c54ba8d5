# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chain of thought: the judge reasons about the two candidates first, then chooses (arXiv 2212.08073, section 4.1).

    turn 1   question by one principle, "think step by step"  ->  reasoning
    turn 2   the same, the reasoning, "so the answer is"      ->  (A) or (B), by log-probabilities
    turn 3   only if the server returned none: votes

The choice is a turn of its own, so no verdict is parsed from the reasoning, which may quote the candidates. After
arguing for one side a model is nearly certain of it. As in the paper, such overconfident probabilities are clamped,
to 40-60 % by default.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from nemo_aligner_cai.chat import CONTROL_TOKENS, Conversation, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.base import Verdict
from nemo_aligner_cai.judges.few_shot import choice_examples
from nemo_aligner_cai.judges.multiple_choice import choice_requests, choice_verdict, is_scored, with_probability
from nemo_aligner_cai.judges.pair_judge import PairJudge, PresentationOrder
from nemo_aligner_cai.judges.pairs import Pair
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Completion, Request, Sampling


@dataclass(frozen=True)
class ChainOfThoughtStrategy:
    """A `PairwiseStrategy` that asks for reasoning before the choice."""

    settings: JudgeSettings

    def __post_init__(self) -> None:
        """Raises UsageError if `clamp` leaves no pair with the margin, or if the few-shots contain no reasoning."""
        low, high = self._clamp
        widest = 2 * max(high, 1 - low) - 1
        if Fraction(str(self.settings.margin)) > widest:
            raise UsageError(
                f"judge: probabilities between {float(low):g} and {float(high):g} give a margin of at most "
                f"{float(widest):g}, so no pair has the margin {self.settings.margin:g}"
            )
        if self.settings.few_shots.comparisons:
            raise UsageError(
                "--judge-few-shot-path: comparisons contain no reasoning; a judge that reasons first needs dialogues"
            )

    @property
    def _clamp(self) -> tuple[Fraction, Fraction]:
        # The decimals as written: in binary floating point 2 * 0.6 - 1 < 0.2, so an exact margin would be missed.
        low, high = self.settings.clamp
        return Fraction(str(low)), Fraction(str(high))

    @property
    def max_turns(self) -> int:
        """The reasoning, and the turns of the choice."""
        return 2 + self.settings.logprobs

    def requests(self, order: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """Ask for the reasoning, then for the choice."""
        if is_scored(past):
            return []
        templates = self.settings.templates
        few_shots = choice_examples(self.settings.few_shots, order.principle, templates)
        text = templates.reasoning_question(order.conversation, order.principle, *order.texts)
        asked = Conversation((*few_shots, *Conversation.of_user(text).messages))
        if not past:
            sampling = Sampling(greedy=True, max_tokens=self.settings.max_tokens)
            return [Request(asked, sampling, shared=len(few_shots))]
        if not past[0][0].text.strip():
            # A choice without reasoning would be another judge's.
            return []
        reasoning = CONTROL_TOKENS.escape(past[0][0].text)
        conversation = asked.with_turn(Role.ASSISTANT, reasoning).with_turn(Role.USER, templates.choice_turn)
        return choice_requests(self.settings, conversation, past[1:], shared=len(few_shots))

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """Return the verdict of the choice, with its probability clamped and the reasoning as explanation."""
        reasoning = past[0][0]
        if not reasoning.text.strip():
            return Verdict(shown, principle, None, None)
        verdict = choice_verdict(self.settings, shown, principle, past[1:])
        if verdict.probability is not None:
            low, high = self._clamp
            verdict = with_probability(verdict, min(high, max(low, verdict.probability)))
        return replace(
            verdict,
            raw=f"{reasoning.text}\n{verdict.raw}".strip(),
            explanation=reasoning.text.strip(),
            is_cut=reasoning.finish_reason == "length",
        )


def chain_of_thought(settings: JudgeSettings) -> PairJudge:
    """Reasoning first, then (A) or (B), with probabilities clamped to an interval (40 to 60 %)."""
    return PairJudge("chain-of-thought", ChainOfThoughtStrategy(settings), settings)
