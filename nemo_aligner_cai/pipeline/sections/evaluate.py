# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Prompt sets and graders for the three models of a run.

Input:  evaluate: {sets: [{name: xstest, file: xstest_prompts.csv}], grader: [xstest, engagement], grader_model: {...}}
Output: the settings of `cai evaluate`
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.gold import read_gold, require_asked, require_classes
from nemo_aligner_cai.evaluation.graders.spec import is_grader_file
from nemo_aligner_cai.evaluation.inputs import load_graders
from nemo_aligner_cai.evaluation.replies.prompt_sets import read_prompt_set
from nemo_aligner_cai.evaluation.settings import EvaluateConfig, SetSource
from nemo_aligner_cai.files.sources import data_files
from nemo_aligner_cai.judges.settings import JudgeConfig
from nemo_aligner_cai.models.base import Sampling
from nemo_aligner_cai.pipeline.sections.decoding import Decoding
from nemo_aligner_cai.pipeline.sections.models import TINY, EndpointModel
from nemo_aligner_cai.sections import Section

Baseline = Literal["helpful_only", "sl_cai", "rl_cai"]


class Evaluate(Section):
    """The evaluation at the end of a run; see `evaluation.settings.EvaluateConfig`.

    Attributes:
        sets: the prompt sets; the file `tiny` is the tiny world's held-out prompts.
        grader: names or YAML files of graders; `tiny` is the tiny language's.
        grader_model: the model that grades and judges: an endpoint, or `judge` for the run's.
        baseline: the model to which the others are compared.
        pairwise: a judge strategy, to compare the models in pairs by the run's constitution; None for no comparisons.
        gold: files with human labels.
        decoding: sampling of the replies.
        batch_size: conversations per request to NeMo's server.
        limit: prompts of each side of each set; None for all.
        allow_self_grading: accept a grader that is one of the models.
        max_dropped: the share of the prompts that failed calls may drop.
    """

    sets: tuple[SetSource, ...] = Field(min_length=1)
    grader: tuple[str, ...] = Field(min_length=1)
    grader_model: Literal["judge"] | EndpointModel | None = None
    baseline: Baseline = "helpful_only"
    pairwise: str | None = None
    gold: tuple[Path, ...] = ()
    decoding: Decoding = Sampling(greedy=True, max_tokens=512)
    batch_size: int = Field(default=64, gt=0)
    limit: int | None = Field(default=None, gt=0)
    allow_self_grading: bool = False
    max_dropped: float = Field(default=0.01, ge=0, le=1)

    def files(self, measured: Path) -> tuple[Path, ...]:
        """The files that the evaluation reads; `measured` are the tiny world's held-out prompts."""
        graders = [Path(name) for name in self._graders if is_grader_file(name)]
        return (*(_set_file(one, measured) for one in self.sets), *graders, *self.gold)

    @property
    def is_tiny(self) -> bool:
        """True if a set or a grader is that of the tiny world."""
        return TINY in (*self.grader, *(one.file for one in self.sets))

    def check(self, measured: Path) -> None:
        """Read graders, sets and labels before the first step; raises UsageError if the evaluation would refuse them.

        The tiny world's prompts, and data sets on the hub, are not read: the former are not made yet.
        """
        graders = load_graders(self._graders)
        needed = [grader.name for grader in graders if grader.asks_model] or ([self.pairwise] if self.pairwise else [])
        if needed and self.grader_model is None:
            raise UsageError(f"evaluate.grader_model: is needed by {', '.join(needed)}")
        if not needed and self.grader_model is not None:
            raise UsageError("evaluate.grader_model: has no effect: no grader asks a model, and there is no pairwise")
        for path in self.files(measured):
            if path != measured:
                data_files(path)
        local = [one for one in self.sets if one.file != TINY and os.path.exists(one.file)]
        sets = [read_prompt_set(one.name, one.file, side=one.side, limit=self.limit) for one in local]
        asked = {prompt.id for one in sets for prompt in one.prompts}
        for path in self.gold:
            gold = read_gold(path)
            require_classes(gold, graders)
            if len(sets) == len(self.sets):
                require_asked(gold, get_args(Baseline), asked)

    @property
    def _graders(self) -> tuple[str, ...]:
        return tuple(str(packaged_files.GRADER) if name == TINY else name for name in self.grader)

    def config(self, output: Path, measured: Path, *, constitution: Path, seed: int) -> EvaluateConfig:
        """The settings of the evaluation.

        `measured` are the tiny world's held-out prompts; `constitution` is for pairwise comparisons.
        """
        judge = None
        if self.pairwise is not None:
            judge = JudgeConfig(strategy=self.pairwise, constitution=constitution, pairs="all")
        return EvaluateConfig(
            sets=tuple(one.model_copy(update={"file": str(_set_file(one, measured))}) for one in self.sets),
            graders=self._graders,
            output=output,
            baseline=self.baseline,
            judge=judge,
            gold=self.gold,
            sampling=self.decoding,
            limit=self.limit,
            allow_self_grading=self.allow_self_grading,
            # The identities of all models are in the step's record and in the journal keys.
            run=RunSettings(seed=seed, resume=True, max_dropped=self.max_dropped, ask_for_models=False, progress=True),
        )


def _set_file(source: SetSource, measured: Path) -> Path:
    return measured if source.file == TINY else Path(source.file)
