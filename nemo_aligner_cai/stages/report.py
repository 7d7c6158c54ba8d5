# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The counts of a data stage, for the terminal table, the manifest and the metrics of `cai run`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_aligner_cai.data.blend import Blend
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import RowCounts


def blend_counts(blend: Blend) -> dict[str, Any]:
    """Return the row counts of a blend, with those of each origin."""
    total = sum(blend.rows.values())
    return RowCounts(rows_in=total, written=total).to_dict() | {"origins": dict(blend.rows)}


@dataclass(frozen=True)
class TrainingFiles:
    """The result of writing a stage's training files.

    Attributes:
        lines: one line per step, for the terminal.
        rows: file name -> row counts.
        missing: the reason why there is nothing to train on, else None.
    """

    lines: Sequence[str] = ()
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    missing: str | None = None


@dataclass(frozen=True)
class StageReport:
    """The result of a stage.

    Attributes:
        title: the stage's name.
        summary: counts of prompts, calls and tokens.
        models: role -> identity of the model.
        rows: file name -> row counts.
        files: path -> SHA-256 of each written file.
        lines: for the terminal.
        max_dropped: share of the prompts that may be dropped because of faults.
        missing: the reason why there is nothing to train on, else None.
        manifest: the run's manifest, if it has one.
    """

    title: str
    summary: Summary
    models: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]
    lines: Sequence[str]
    max_dropped: float
    missing: str | None = None
    manifest: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"summary": self.summary.to_dict(), "models": dict(self.models), "rows": dict(self.rows)}

    def check(self) -> None:
        """Check that enough was written. Call it after everything is saved and shown.

        Raises:
            StageIncomplete: too many prompts were dropped because of faults, or there is nothing to train on.
        """
        try:
            self.summary.check(self.max_dropped)
        except CaiError as error:
            raise StageIncomplete(str(error), self) from error
        if self.missing is not None:
            raise StageIncomplete(self.missing, self)


class StageIncomplete(CaiError):
    """A stage wrote too little; `report` has its counts, and the journal has all its calls."""

    def __init__(self, message: str, report: StageReport) -> None:
        super().__init__(message)
        self.report = report
