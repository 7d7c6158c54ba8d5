# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A prompt with its candidate responses, and the judge's turns as steps of the engine.

Input:  PreferenceSample(prompt, candidates=(Candidate("response_0", "I can help ..."), Candidate("response_1", "No")))
Output: the same sample with a judgment
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nemo_aligner_cai.data.judged_row import Candidate
from nemo_aligner_cai.engine.engine import SkipRecord, Step
from nemo_aligner_cai.judges.base import TIES, UNPARSED, Answer, Judge, JudgeInput, Judgment, Question, Turn
from nemo_aligner_cai.models.base import Completion, ModelClient, Request
from nemo_aligner_cai.prompts import Prompt


@dataclass(frozen=True)
class PreferenceSample:
    """A prompt on its way through sampling and judging.

    Attributes:
        prompt: the prompt.
        candidates: its responses, in the order of the first presentation.
        turns: the judge's past turns.
        judgment: the judge's result, None before it.
        counts: counts for the summary.
        asked: the judge's questions of the current turn. They are needed again when the answers arrive, and building
            them is most of a turn's work.
    """

    prompt: Prompt
    candidates: tuple[Candidate, ...] = ()
    turns: tuple[Turn, ...] = ()
    judgment: Judgment | None = None
    counts: Counter[str] = field(default_factory=Counter[str])
    asked: list[tuple[Judge, int, list[Question]]] = field(
        default_factory=list[tuple[Judge, int, list[Question]]], repr=False, compare=False
    )

    @property
    def id(self) -> str:
        """The prompt's id."""
        return self.prompt.id

    @property
    def judge_input(self) -> JudgeInput:
        """The input of the judge."""
        return JudgeInput(self.id, self.prompt.conversation, tuple(one.text for one in self.candidates))


@dataclass(frozen=True)
class JudgePipeline:
    """The judge's turns as steps: pure functions of a sample."""

    judge: Judge
    judge_model: ModelClient

    def steps(self, candidates: int) -> list[Step[PreferenceSample]]:
        """Return one step for each turn that samples with up to `candidates` candidates may need."""
        turns = self.judge.max_turns(candidates)
        absorbs = [self._record_turn] * (turns - 1) + [self._decide]
        return [
            Step(f"judge {number}" if number > 1 else "judge", self.judge_model, self._requests, absorb)
            for number, absorb in enumerate(absorbs, start=1)
        ]

    def _questions(self, sample: PreferenceSample) -> list[Question]:
        turn = len(sample.turns)
        for judge, asked_in, questions in sample.asked:
            if judge is self.judge and asked_in == turn:
                return questions
        questions = self.judge.questions(sample.judge_input, sample.turns)
        sample.asked[:] = [(self.judge, turn, questions)]
        return questions

    def _requests(self, sample: PreferenceSample) -> list[Request]:
        return [question.request for question in self._questions(sample)]

    def _record_turn(self, sample: PreferenceSample, completions: Sequence[Completion]) -> PreferenceSample:
        turn = tuple(Answer(*pair) for pair in zip(self._questions(sample), completions, strict=True))
        return replace(sample, turns=(*sample.turns, turn))

    def _decide(self, sample: PreferenceSample, completions: Sequence[Completion]) -> PreferenceSample:
        sample = self._record_turn(sample, completions)
        judgment = self.judge.decide(sample.judge_input, sample.turns)
        sample = replace(sample, judgment=judgment, counts=sample.counts + judgment.counts)
        if judgment.preferences:
            return sample
        if judgment.counts[TIES]:
            raise SkipRecord("a tie: the judge's two orders disagree, or it sees no difference", record=sample)
        if judgment.counts[UNPARSED]:
            raw = next((verdict.raw for verdict in judgment.verdicts if not verdict.is_parsed), "")
            raise SkipRecord("no verdict in the judge's answer", raw[:200], fault=True, record=sample)
        raise SkipRecord("the judge is not sure enough", record=sample)
