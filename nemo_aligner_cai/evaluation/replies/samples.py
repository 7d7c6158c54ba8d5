# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A prompt on its way through one model and the graders, as steps of the engine.

Input:  EvalSample(EvalPrompt(set="xstest", side="harmful", ...))
Output: the sample with reply="No, because ..." and grades=(Grade("xstest", "full_refusal"), Grade("engagement",
        "explains"))
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nemo_aligner_cai.engine.engine import Step
from nemo_aligner_cai.evaluation.graders.asking import option_probabilities, question
from nemo_aligner_cai.evaluation.graders.parsing import (
    ASSIGNED,
    Grade,
    grade_by_logprobs,
    grade_by_strings,
    grade_by_text,
)
from nemo_aligner_cai.evaluation.graders.spec import EMPTY, Grader
from nemo_aligner_cai.evaluation.replies.prompt_sets import EvalPrompt
from nemo_aligner_cai.evaluation.replies.saved_completions import FAILED
from nemo_aligner_cai.models.base import Completion, ModelClient, Request, Sampling

ANSWER = "answer"
"""Name of the step of the evaluated model."""
CUT = "replies cut at the token limit"
_CALL_FAILED = "the call failed"


@dataclass(frozen=True)
class EvalSample:
    """A prompt, a model's reply to it, and the grades.

    Attributes:
        prompt: the prompt.
        sample: index among the replies to this prompt.
        reply: None before the model has replied.
        finish_reason: "stop", "length", or "failed".
        grades: in the order of the graders; those of string graders are added last.
    """

    prompt: EvalPrompt
    sample: int = 0
    reply: str | None = None
    finish_reason: str = FAILED
    grades: tuple[Grade, ...] = ()

    @property
    def id(self) -> str:
        """The id of this reply within its model's run."""
        return f"{self.prompt.set}/{self.prompt.id}/{self.sample}"

    @property
    def counts(self) -> Counter[str]:
        """Counts for the summary of a run."""
        unscored = Counter(f"unscored by {grade.grader}" for grade in self.grades if grade.label is None)
        return unscored + Counter({CUT: self.finish_reason == "length"})

    def grade_of(self, grader: Grader) -> Grade | None:
        """Return the grade of a grader, None if there is none yet."""
        return next((grade for grade in self.grades if grade.grader == grader.name), None)


@dataclass(frozen=True)
class SamplePipeline:
    """The steps of one model's samples.

    Attributes:
        graders: in order; the first one decides for dependent graders.
        grader_model: the model that grades; None if all graders are string graders.
        model: the evaluated model; None for saved completions.
        sampling: parameters of its replies.
    """

    graders: tuple[Grader, ...]
    grader_model: ModelClient | None
    model: ModelClient | None
    sampling: Sampling

    def steps(self) -> list[Step[EvalSample]]:
        """Return the step of the model, and one or two steps for each grader that asks a model."""
        steps: list[Step[EvalSample]] = []
        if self.model is not None:
            steps.append(Step(ANSWER, self.model, self._ask, _with_reply))
        if self.grader_model is not None:
            for grader in self.graders:
                if grader.asks_model:
                    steps += _GraderSteps(grader, self.graders[0]).steps(self.grader_model)
        return steps

    def _ask(self, sample: EvalSample) -> list[Request]:
        return [Request(sample.prompt.conversation, self.sampling)]

    def to_row(self, model: str, sample: EvalSample) -> dict[str, Any]:
        """Return a sample as JSON, with a grade of every grader; grades that are missing are unscored."""
        grades: list[Grade] = []
        if sample.reply is not None:
            for grader in self.graders:
                if sample.prompt.side not in grader.sides:
                    continue
                made = grade_of(grader, self.graders[0], sample)
                grades.append(made or Grade(grader.name, None, raw=_CALL_FAILED))
        return {
            "model": model,
            "set": sample.prompt.set,
            "side": sample.prompt.side,
            "id": sample.prompt.id,
            "sample": sample.sample,
            "key": sample.prompt.key,
            "category": sample.prompt.category,
            "messages": sample.prompt.conversation.to_messages(),
            "reply": sample.reply,
            "finish_reason": sample.finish_reason,
            "grades": [vars(grade) for grade in grades],
        }


def _with_reply(sample: EvalSample, completions: Sequence[Completion]) -> EvalSample:
    [completion] = completions
    return replace(sample, reply=completion.text, finish_reason=completion.finish_reason)


def grade_of(grader: Grader, first: Grader, sample: EvalSample) -> Grade | None:
    """Return a grade that needs no call, or that a call has given; None if the model must be asked."""
    assert sample.reply is not None, "only replies are graded"
    if (made := sample.grade_of(grader)) is not None:
        return made
    if not grader.asks_model:
        return grade_by_strings(grader, sample.reply)
    if not sample.reply.strip():
        return Grade(grader.name, EMPTY, 0.0 if grader.scores else None, ASSIGNED)
    if grader.assumed and grader is not first and sample.prompt.side in first.sides:
        decided = grade_of(first, first, sample)
        if decided is not None and decided.label in first.complies:
            return Grade(grader.name, grader.assumed, by=ASSIGNED)
    return None


@dataclass(frozen=True)
class _GraderSteps:
    """The steps of one grader: log-probabilities of options, then the text where there were none."""

    grader: Grader
    first: Grader

    def steps(self, client: ModelClient) -> list[Step[EvalSample]]:
        name = f"grade {self.grader.name}"
        text = Step(f"{name} text", client, self._ask_text, self._absorb_text)
        return [Step(name, client, self._ask_options, self._absorb_options), text][self.grader.parser != "options" :]

    def _question(self, sample: EvalSample) -> Request | None:
        is_out = sample.reply is None or sample.prompt.side not in self.grader.sides
        if is_out or grade_of(self.grader, self.first, sample) is not None:
            return None
        return question(self.grader, sample.prompt.conversation, sample.reply or "")

    def _ask_options(self, sample: EvalSample) -> list[Request]:
        request = self._question(sample)
        return [] if request is None else [request]

    def _ask_text(self, sample: EvalSample) -> list[Request]:
        request = self._question(sample)
        return [] if request is None else [replace(request, choices=())]

    def _absorb_options(self, sample: EvalSample, completions: Sequence[Completion]) -> EvalSample:
        scored = [shares for one in completions if (shares := option_probabilities(one)) is not None]
        return _with_grades(sample, [grade_by_logprobs(self.grader, shares) for shares in scored])

    def _absorb_text(self, sample: EvalSample, completions: Sequence[Completion]) -> EvalSample:
        return _with_grades(sample, [grade_by_text(self.grader, one.text) for one in completions])


def _with_grades(sample: EvalSample, grades: Sequence[Grade]) -> EvalSample:
    return replace(sample, grades=(*sample.grades, *grades))
