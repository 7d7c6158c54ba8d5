# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files of a run, finished or not, or those of an evaluation alone.

Input:  a folder of `cai run`: run.json, 1_data/step.json, 2_sl_cai/revisions.jsonl, ..., evaluation.json;
        or the folder of a `cai evaluate`, which has no steps
Output: RunFolder(steps=(StepState("1_data", ..., done=True), ...), ...)

Files are found by name, not by step: a run with DPO, or with other steps, needs no other code. Only the files of
steps that are done with the settings in run.json count, except for training curves, which are worth reading while a
trainer works.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.results import RESULT_FILE, Evaluation, Figure, read_evaluation
from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.pipeline.records import RUN_RECORD, STARTED, STEP_RECORD, Origin, current_steps
from nemo_aligner_cai.sections import LenientModel, first_problem
from nemo_aligner_cai.training.metrics.files import METRICS_FILE

_FIX = "give the --output of `cai run`, `cai quickstart` or `cai evaluate`"
M = TypeVar("M", bound=BaseModel)


class Counts(LenientModel):
    """Row counts of one file; see `files.RowCounts`."""

    rows_in: int
    written: int
    left_out: dict[str, int] = Field(default_factory=dict)
    made: int | None = None


class Generation(LenientModel):
    """Counts of the calls of a data stage; see `engine.summary`."""

    balance: Counts
    calls: int
    reused: int
    failed: int
    retries: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    facts: dict[str, int] = Field(default_factory=dict)


class Facts(LenientModel):
    """The facts of a step; data stages have counts, other steps have none."""

    balances: dict[str, Counts] = Field(default_factory=dict)
    generation: Generation | None = None


class StepRecord(Origin):
    """A step.json."""

    inputs: str
    outputs: dict[str, str]
    seconds: float
    peak_rss_mb: float
    facts: Facts


class _Titled(LenientModel):
    name: str = Field(pattern=r"^\w+$")
    title: str
    settings_hash: str | None = None


class Principle(LenientModel):
    """A principle's requests; None for those that it does not have."""

    id: str
    critique: str | None = None
    revision: str | None = None
    judge: str | None = None


class ConstitutionRecord(LenientModel):
    """The constitution in a run.json."""

    name: str
    principles: tuple[Principle, ...]


class RunRecord(LenientModel):
    """A run.json."""

    settings: dict[str, Any]
    constitution: ConstitutionRecord
    steps: tuple[_Titled, ...]
    versions: dict[str, str]


class JudgeFigures(LenientModel):
    """The judge's agreement with known answers; `accuracy` is None without any."""

    accuracy: float | None = None
    low: float = 0.0
    high: float = 1.0
    n: int = 0


class RewardModelFigures(LenientModel):
    """The reward model's last validation; `accuracy` is None if validation was disabled."""

    accuracy: float | None = Field(default=None, alias="val/acc")


class Measured(LenientModel):
    """A figures.json: model -> decoding -> metric -> rate, and the figures of judge and reward model."""

    stages: dict[str, dict[str, dict[str, Figure]]] = Field(default_factory=dict)
    judge: JudgeFigures = JudgeFigures()
    reward_model: RewardModelFigures = RewardModelFigures()


@dataclass(frozen=True)
class StepState:
    """A step of a run.

    Attributes:
        name: its name.
        title: shown to the user.
        started: it was started.
        record: None unless it is done with the current settings.
        outdated: it was done with earlier settings, or from files that have been made again since.
    """

    name: str
    title: str
    started: bool
    record: StepRecord | None
    outdated: bool = False


class RunFolder:
    """A run's folder, read when needed."""

    def __init__(self, path: Path) -> None:
        """Look at the folder; raises UsageError if it holds nothing to show, or if one of its records is damaged."""
        if not path.is_dir():
            raise UsageError(f"{path}: not a folder; {_FIX}")
        self.path = path
        record = path / RUN_RECORD
        self.record = _read(record, RunRecord) if record.is_file() else None
        self.steps = tuple(self._states())
        if self.is_evaluation and not (path / RESULT_FILE).is_file():
            raise UsageError(f"{path}: holds no step of a run and no {RESULT_FILE}; {_FIX}")

    def _states(self) -> Iterator[StepState]:
        started = {file.parent.name for file in self.path.glob(f"*/{STARTED}")}
        # Folders of other steps are left from a run with other sections.
        planned = self.record.steps if self.record else [_Titled(name=name, title=name) for name in sorted(started)]
        files = {step.name: file for step in planned if (file := self.path / step.name / STEP_RECORD).is_file()}
        records = {name: _read(file, StepRecord) for name, file in files.items()}
        current = current_steps({step.name: step.settings_hash for step in planned}, records)
        for step in planned:
            record = records.get(step.name)
            is_current = step.name in current
            yield StepState(
                step.name,
                step.title,
                step.name in started,
                record if is_current else None,
                outdated=record is not None and not is_current,
            )

    @property
    def is_evaluation(self) -> bool:
        """True for the folder of `cai evaluate`: there is no step."""
        return not any(step.started for step in self.steps)

    @property
    def missing(self) -> tuple[StepState, ...]:
        """The steps that are not done with the current settings."""
        return tuple(step for step in self.steps if step.record is None)

    def find(self, name: str) -> Path | None:
        """The file of this name that a finished step wrote."""
        paths = (self.path / step.name / name for step in self.steps if step.record is not None)
        return next((path for path in paths if path.is_file()), None)

    def log_folders(self) -> Iterator[tuple[StepState, Path]]:
        """Each step with a trainer's log directory, finished or not, but not of earlier settings."""
        for step in self.steps:
            folder = self.path / step.name / "train"
            if step.started and not step.outdated and (folder / METRICS_FILE).is_file():
                yield step, folder

    @cached_property
    def measured(self) -> Measured:
        """The figures of the measuring step; empty if it is not done."""
        file = self.find("figures.json")
        return _read(file, Measured) if file else Measured()

    def replies(self) -> Iterator[tuple[str, str, Path]]:
        """Model, decoding and file of the measured replies."""
        file = self.find("figures.json")
        for model, decodings in self.measured.stages.items():
            for decoding in decodings:
                if file and (path := file.with_name(f"{model}_{decoding}.jsonl")).is_file():
                    yield model, decoding, path

    @cached_property
    def evaluation_file(self) -> Path | None:
        """The evaluation.json in the run's folder or in one of its folders; raises UsageError if there are several.

        That of a step counts only if the step is done with the current settings.
        """
        files = (self.path / RESULT_FILE, *sorted(self.path.glob(f"*/{RESULT_FILE}")))
        done = {self.path / step.name for step in self.steps if step.record is not None}
        found = [
            path for path in files if path.is_file() and (path.parent in done or not (path.parent / STARTED).is_file())
        ]
        if len(found) > 1:
            names = " and ".join(map(str, found))
            raise UsageError(f"{self.path}: holds several evaluations: {names}; move all but one elsewhere")
        return found[0] if found else None

    def evaluated(self, kind: Literal["completions", "grades", "comparisons"]) -> Path | None:
        """A file of the evaluation; None without one."""
        name = getattr(self.evaluation.files, kind) if self.evaluation else None
        return self.evaluation_file.with_name(Path(name).name) if self.evaluation_file and name else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of the run, or what an evaluation alone was made from; {} if they are not known."""
        if self.record:
            return self.record.settings
        return _evaluated_from(self.evaluation) if self.is_evaluation and self.evaluation else {}

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that wrote the folder, as far as they are known."""
        if self.record:
            return self.record.versions
        return {"nemo_aligner_cai": self.evaluation.run.version} if self.is_evaluation and self.evaluation else {}

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The result of `cai evaluate`, if there is one."""
        return read_evaluation(self.evaluation_file) if self.evaluation_file else None


def _evaluated_from(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **evaluation.run.model_dump(exclude={"version"}),
        "model": {one.name: {"source": one.source, **one.identity} for one in evaluation.models},
        "set": {one.name: {"file": one.file, "sha256": one.sha256} for one in evaluation.sets},
        "grader": {one.name: {"sha256": one.sha256, **(one.model or {})} for one in evaluation.graders},
    }


def _read(path: Path, schema: type[M]) -> M:
    try:
        return schema.model_validate(read_json(path))
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}; run `cai run` again to write it") from error
