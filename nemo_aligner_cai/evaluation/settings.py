# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of an evaluation, and the models that take part in it.

Input:  EvaluateConfig(sets=({"name": "xstest", "file": "xstest_prompts.csv"},), graders=("xstest-strings",), ...)
Output: the files of `EvaluationFiles`
"""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.results import MANIFEST_FILE, RESULT_FILE, Side
from nemo_aligner_cai.judges.settings import JudgeConfig
from nemo_aligner_cai.models.base import ClientContext, ModelClient, Sampling
from nemo_aligner_cai.sections import Config, Source

ModelKind = Literal["endpoint", "nemo_server", "nemo_file", "hf_folder", "completions"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A model's or set's name, which becomes part of file names."""


def check_name(name: str) -> str:
    """Return a valid name; raises UsageError otherwise."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r}: a name has letters, digits, '.', '_' and '-', and begins with a letter or digit")
    return name


@dataclass(frozen=True)
class EvaluatedModel:
    """A model of an evaluation, or the model that grades.

    Attributes:
        name: its name in the results.
        kind: its kind.
        source: its address or path, as the user gave it.
        serve: makes a client, for a .nemo file of a server that runs for the duration of the `with` block; None for
            saved completions.
        identity: the identity of that client, for plans.
    """

    name: str
    kind: ModelKind
    source: str
    serve: ClientContext | None = None
    identity: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def client(self) -> AbstractContextManager[ModelClient | None]:
        """Return the context of a client; None for saved completions."""
        return self.serve() if self.serve is not None else nullcontext()


class SetSource(Config):
    """A prompt set: a file, and its side if its columns do not tell."""

    name: str
    file: Source
    side: Side | None = None

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        return check_name(name)


class EvaluateConfig(Config):
    """The settings.

    Attributes:
        sets: the prompt sets.
        graders: names of components of kind "graders", or YAML files; the first one decides for dependent graders.
        output: the folder of all files.
        baseline: the model to which the others are compared; None makes no comparison.
        judge: the judge of pairwise comparisons; None makes none.
        gold: files with human labels.
        sampling: parameters of the replies.
        limit: number of prompts of each side of each set; None uses all.
        allow_self_grading: accept a grader that is one of the evaluated models; the results name it.
        run: seed, resume, overwrite and others.
        record: the settings as the manifest records them; None records this configuration.
    """

    sets: tuple[SetSource, ...] = Field(min_length=1)
    graders: tuple[str, ...] = Field(min_length=1)
    output: Path
    baseline: str | None = None
    judge: JudgeConfig | None = None
    gold: tuple[Path, ...] = ()
    sampling: Sampling = Sampling(greedy=True, max_tokens=512)
    limit: int | None = Field(default=None, gt=0)
    allow_self_grading: bool = False
    run: RunSettings = RunSettings()
    record: dict[str, Any] | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _check_names(self) -> "EvaluateConfig":
        names = [one.name for one in self.sets]
        if len(set(names)) < len(names):
            raise UsageError(f"two prompt sets have the same name: {', '.join(names)}")
        if self.judge is not None and self.judge.pairs != "all":
            raise UsageError("pairwise comparisons need the judge's pairs: all")
        if self.judge is not None and self.judge.strategy == "best-worst":
            raise UsageError("best-worst names one best reply of all; choose a judge that compares pairs")
        return self


@dataclass(frozen=True)
class EvaluationFiles:
    """The files of an evaluation."""

    folder: Path

    @property
    def result(self) -> Path:
        """The figures."""
        return self.folder / RESULT_FILE

    @property
    def completions(self) -> Path:
        """All replies, without grades."""
        return self.folder / "completions.jsonl"

    @property
    def grades(self) -> Path:
        """All grades."""
        return self.folder / "grades.jsonl"

    @property
    def comparisons(self) -> Path:
        """The pairwise comparisons."""
        return self.folder / "comparisons.jsonl"

    def log(self, model: str) -> Path:
        """The log of one model for inspect_ai."""
        return self.folder / "logs" / f"{model}.eval"

    @property
    def manifest(self) -> Path:
        """Settings, counts, hashes and versions."""
        return self.folder / MANIFEST_FILE

    def rows(self, model: str) -> Path:
        """The graded replies of one model; next to them its journal and the dropped prompts."""
        return self.folder / "models" / f"{model}.jsonl"
