# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The inputs of an evaluation: graders, prompt sets, saved completions, judge and human labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.engine.run_stage import companion
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.gold import read_gold, require_asked, require_classes
from nemo_aligner_cai.evaluation.graders.spec import Grader, is_grader_file, load_grader
from nemo_aligner_cai.evaluation.replies.prompt_sets import EvalPrompt, read_prompt_set
from nemo_aligner_cai.evaluation.replies.samples import EvalSample, SamplePipeline
from nemo_aligner_cai.evaluation.replies.saved_completions import FAILED, read_saved_completions
from nemo_aligner_cai.evaluation.results import SavedFacts
from nemo_aligner_cai.evaluation.self_grading import self_grading_error
from nemo_aligner_cai.evaluation.settings import EvaluateConfig, EvaluatedModel, EvaluationFiles, check_name
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.judges.settings import build_judge
from nemo_aligner_cai.models.base import ModelClient


def load_graders(names: Sequence[str]) -> tuple[Grader, ...]:
    """Load graders in order; raises UsageError if one is invalid, or if the first one depends on another."""
    graders = tuple(map(load_grader, names))
    own = [grader.name for grader in graders]
    if len(set(own)) < len(own):
        raise UsageError(f"two graders have the same name: {', '.join(own)}")
    if graders[0].assumed:
        raise UsageError(
            f"--grader {own[0]} only asks about replies that another grader does not call compliant; give another "
            "--grader, such as xstest, before it"
        )
    return graders


class EvaluationInputs:
    """Everything that an evaluation reads, checked before the first request.

    Attributes:
        config: the settings.
        models: the evaluated models in order.
        grader_model: the model that grades and judges, if one is needed.
        graders: the graders in order.
        sets: the prompt sets.
        files: the paths of all files.
        judge: the judge of pairwise comparisons, if any.
        gold: files with human labels, and the graders that have their classes.
    """

    def __init__(
        self, config: EvaluateConfig, models: Sequence[EvaluatedModel], grader_model: EvaluatedModel | None
    ) -> None:
        """Read all inputs.

        Raises:
            UsageError, FormatError: a setting or an input is invalid.
        """
        self.config, self.models, self.grader_model = config, tuple(models), grader_model
        self.files = EvaluationFiles(config.output)
        self.graders = load_graders(config.graders)
        self._check_models()
        self._check_grader_model()
        self.sets = tuple(
            read_prompt_set(one.name, one.file, side=one.side, limit=config.limit) for one in config.sets
        )
        self._saved = {
            model.name: read_saved_completions(model.source, model=model.name) for model in models if not model.serve
        }
        for saved in self._saved.values():
            saved.require(self.prompts, max_dropped=config.run.max_dropped)
        self.judge = build_judge(config.judge, seed=config.run.seed) if config.judge else None
        asked, names = {prompt.id for prompt in self.prompts}, [model.name for model in models]
        found = [require_asked(read_gold(path), names, asked) for path in config.gold]
        self.gold = [(gold, require_classes(gold, self.graders)) for gold in found]

    @property
    def sources(self) -> list[PathLike]:
        """All files that are read, but for models."""
        config = self.config
        return [
            *(one.file for one in config.sets),
            *(model.source for model in self.models if model.serve is None),
            *filter(is_grader_file, config.graders),
            *([config.judge.constitution] if config.judge else ()),
            *config.gold,
        ]

    def saved_identity(self, name: str) -> dict[str, Any]:
        """The identity of a model's saved completions."""
        return {"sha256": self._saved[name].sha256}

    def saved_facts(self, name: str) -> SavedFacts | None:
        """The counts of a model's saved completions; None for a model that is asked."""
        saved = self._saved.get(name)
        return saved and saved.facts(self.prompts)

    @property
    def prompts(self) -> list[EvalPrompt]:
        """The prompts of all sets."""
        return [prompt for one in self.sets for prompt in one.prompts]

    def _check_models(self) -> None:
        names = [check_name(model.name) for model in self.models]
        if len(set(names)) < len(names):
            raise UsageError(f"two models have the same name: {', '.join(names)}")
        if self.config.baseline not in (None, *names):
            raise UsageError(f"--baseline {self.config.baseline}: not one of the models {', '.join(names)}")
        if self.config.judge is not None and len(names) < 2:
            raise UsageError("--judge compares models in pairs, and there is one model; give another --model")

    def _check_grader_model(self) -> None:
        needed = [grader.name for grader in self.graders if grader.asks_model]
        if self.grader_model is None:
            if needed or self.config.judge is not None:
                raise UsageError(f"--grader-model is needed by {', '.join(needed) or '--judge'}")
            return
        if not needed and self.config.judge is None:
            raise UsageError("--grader-model has no effect: no grader asks a model, and there is no --judge")
        for model in self.models:
            is_same = model.serve is not None and model.source == self.grader_model.source
            if is_same and not self.config.allow_self_grading:
                raise self_grading_error(model, self.grader_model)

    def records(self, model: EvaluatedModel) -> Iterator[EvalSample]:
        """Return new samples of a model, with the reply if it is saved."""
        saved = self._saved.get(model.name)
        for prompt in self.prompts:
            if saved is None:
                yield EvalSample(prompt)
                continue
            for number, one in enumerate(saved.of(prompt)):
                reply = None if one.finish_reason == FAILED else one.text
                yield EvalSample(prompt, number, reply, one.finish_reason)

    def pipeline(self, model: ModelClient | None, grader: ModelClient | None) -> SamplePipeline:
        """Return the pipeline of a model's samples; `model` is None for saved completions."""
        return SamplePipeline(self.graders, grader, model, self.config.sampling)

    def journal(self, model: EvaluatedModel) -> Path:
        """The journal of a model's calls and those of its graders."""
        return companion(self.files.rows(model.name), "journal.jsonl")

    def calls(self, model: EvaluatedModel) -> bool:
        """Return True if a model's run makes calls, so that it has a journal."""
        return model.serve is not None or any(grader.asks_model for grader in self.graders)
