# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Judges with a known fault, selected by ``benchmarks.ablations.judges:NAME``.

Both ask the questions of the multiple-choice judge, so a run with one of them reuses the answers of a run with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemo_aligner_cai.engine.seeds import generator
from nemo_aligner_cai.judges.base import Judge, JudgeInput, Judgment, Preference, Question, Turn, Verdict
from nemo_aligner_cai.judges.multiple_choice import MultipleChoiceStrategy, multiple_choice
from nemo_aligner_cai.judges.pair_judge import PairJudge, PresentationOrder
from nemo_aligner_cai.judges.pairs import Pair
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models.base import Completion, Request

BIAS = 5.4
"""Nats added to the first option's log-probability: the packaged judge's own log-odds are as large in the median."""


@dataclass(frozen=True)
class FirstPositionStrategy:
    """A `PairwiseStrategy`: multiple choice by a model that favors the first option.

    Attributes:
        strategy: asks the questions.
        bias: added to the log-probability of the first option, in nats.
    """

    strategy: MultipleChoiceStrategy
    bias: float = BIAS

    @property
    def max_turns(self) -> int:
        """Those of the strategy."""
        return self.strategy.max_turns

    def requests(self, order: PresentationOrder, past: Sequence[Sequence[Completion]]) -> list[Request]:
        """Ask the strategy's questions."""
        return self.strategy.requests(order, past)

    def verdict(self, shown: Pair, principle: str, past: Sequence[Sequence[Completion]]) -> Verdict:
        """Return the verdict of the biased log-probabilities; votes are as they are."""
        return self.strategy.verdict(shown, principle, [list(map(self._biased, turn)) for turn in past])

    def _biased(self, completion: Completion) -> Completion:
        if completion.choice_logprobs is None:
            return completion
        first, *_ = self.strategy.settings.templates.choices
        scores = dict(completion.choice_logprobs)
        return replace(completion, choice_logprobs=scores | {first: scores[first] + self.bias})


@dataclass(frozen=True)
class ShuffledLabels:
    """A `Judge` that keeps the pairs of another one, and draws which candidate of each is chosen.

    Attributes:
        judge: chooses the pairs and their probabilities.
        seed: of the draws, which depend on the pair alone.
        name: of the strategy.
    """

    judge: Judge
    seed: int
    name: str = "shuffled-labels"

    def max_turns(self, candidates: int) -> int:
        """Those of the judge."""
        return self.judge.max_turns(candidates)

    def questions(self, judge_input: JudgeInput, past: Sequence[Turn] = ()) -> list[Question]:
        """Ask the judge's questions."""
        return self.judge.questions(judge_input, past)

    def decide(self, judge_input: JudgeInput, turns: Sequence[Turn]) -> Judgment:
        """Return the judge's judgment with drawn labels; its verdicts and counts are those of the judge."""
        judgment = self.judge.decide(judge_input, turns)
        drawn = tuple(self._drawn(judge_input.id, preference) for preference in judgment.preferences)
        return replace(judgment, preferences=drawn)

    def _drawn(self, prompt: str, preference: Preference) -> Preference:
        pair = sorted((preference.chosen, preference.rejected))
        generator(self.seed, prompt, "label", *pair).shuffle(pair)
        return replace(preference, chosen=pair[0], rejected=pair[1])


def position_biased(settings: JudgeSettings) -> PairJudge:
    """Multiple choice with `BIAS` nats for the option shown first."""
    return PairJudge("position-biased", FirstPositionStrategy(MultipleChoiceStrategy(settings)), settings)


def shuffled_labels(settings: JudgeSettings) -> ShuffledLabels:
    """The pairs of multiple choice with labels that are drawn by the run's seed."""
    return ShuffledLabels(multiple_choice(settings), settings.seed)
