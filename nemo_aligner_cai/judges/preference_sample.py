# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A prompt with its candidate responses on their way through a judge, and the judge's rounds as steps of the engine.

Input:  Contest(prompt, candidates=(Candidate("response_0", "I can help ..."), Candidate("response_1", "No, ...")))
Output: the same contest with a judgement

Sampling puts the candidates there (`comparisons.py`), or a file that has them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nemo_aligner_cai.engine.engine import SkipRecord, Step
from nemo_aligner_cai.judges.base import TIES, UNPARSED, Answered, Judge, JudgeInput, Judgement, Question, Turn
from nemo_aligner_cai.models.base import Completion, ModelClient, Request
from nemo_aligner_cai.prompts import Prompt


@dataclass(frozen=True)
class Candidate:
    """One response; `key` names its sampling as upstream's files do."""

    key: str
    text: str


@dataclass(frozen=True)
class PreferenceSample:
    """A prompt on its way.

    Attributes:
        prompt: the prompt.
        candidates: its responses, in the order in which a judge first sees them.
        rounds: what the judge was asked so far.
        judgement: what came of it.
        counts: what is counted of the prompt.
        asked: a judge's questions of the round under way: they are needed once more when the answers come, and making
            them is most of a round's work.
    """

    prompt: Prompt
    candidates: tuple[Candidate, ...] = ()
    rounds: tuple[Turn, ...] = ()
    judgement: Judgement | None = None
    counts: Counter[str] = field(default_factory=Counter[str])
    asked: list[tuple[Judge, int, list[Question]]] = field(
        default_factory=list[tuple[Judge, int, list[Question]]], repr=False, compare=False
    )

    @property
    def id(self) -> str:
        """The prompt's."""
        return self.prompt.id

    @property
    def case(self) -> JudgeInput:
        """What the judge is shown."""
        return JudgeInput(self.id, self.prompt.conversation, tuple(one.text for one in self.candidates))


@dataclass(frozen=True)
class Judging:
    """The judge's rounds. Pure functions of a contest.

    Attributes:
        judge: the strategy.
        judge_model: the model that is asked.
    """

    judge: Judge
    judge_model: ModelClient

    def steps(self, candidates: int) -> list[Step[PreferenceSample]]:
        """One step for each round that contests with at most so many candidates can take."""
        rounds = self.judge.rounds(candidates)
        absorbs = [self._heard] * (rounds - 1) + [self._judged]
        return [
            Step(f"judge {number}" if number > 1 else "judge", self.judge_model, self._ask, absorb)
            for number, absorb in enumerate(absorbs, start=1)
        ]

    def _questions(self, record: PreferenceSample) -> list[Question]:
        number = len(record.rounds)
        for judge, asked_in, questions in record.asked:
            if judge is self.judge and asked_in == number:
                return questions
        questions = self.judge.questions(record.case, record.rounds)
        record.asked[:] = [(self.judge, number, questions)]
        return questions

    def _ask(self, record: PreferenceSample) -> list[Request]:
        return [question.request for question in self._questions(record)]

    def _heard(self, record: PreferenceSample, completions: Sequence[Completion]) -> PreferenceSample:
        answered = tuple(Answered(*pair) for pair in zip(self._questions(record), completions, strict=True))
        return replace(record, rounds=(*record.rounds, answered))

    def _judged(self, record: PreferenceSample, completions: Sequence[Completion]) -> PreferenceSample:
        record = self._heard(record, completions)
        judgement = self.judge.decide(record.case, record.rounds)
        record = replace(record, judgement=judgement, counts=record.counts + judgement.counts)
        if judgement.preferences:
            return record
        if judgement.counts[TIES]:
            raise SkipRecord("a tie: the judge's two orders disagree, or it sees no difference", record=record)
        if judgement.counts[UNPARSED]:
            raw = next((verdict.raw for verdict in judgement.verdicts if not verdict.is_parsed), "")
            raise SkipRecord("no verdict in the judge's answer", raw[:200], fault=True, record=record)
        raise SkipRecord("the judge is not sure enough", record=record)
