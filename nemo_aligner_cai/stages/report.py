# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Everything that a data stage counts; the terminal table, the manifest and the metrics of `cai run` show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nemo_aligner_cai.data.blend import Blend
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import RowCounts


def blend_counts(blend: Blend) -> dict[str, Any]:
    """The counts of a blend's rows, with the rows of each origin."""
    total = sum(blend.rows.values())
    return RowCounts(rows_in=total, written=total).to_dict() | {"origins": dict(blend.rows)}


@dataclass(frozen=True)
class Written:
    """The training files of a stage.

    Attributes:
        lines: one for each step, for people.
        rows: file name -> the counts of its rows.
        missing: the reason if there is nothing to train on, else None.
    """

    lines: Sequence[str] = ()
    rows: Mapping[str, Mapping[str, Any]] | None = None
    missing: str | None = None


@dataclass(frozen=True)
class StageReport:
    """What a stage did.

    Attributes:
        title: the stage's name.
        summary: prompts, calls, tokens and the counts of the generation.
        models: role -> what identifies the model.
        rows: file name -> the counts of its rows.
        files: path -> SHA-256 of each file that was written.
        lines: for people.
        max_dropped: share of the prompts that may be dropped because of faults.
        missing: the reason if there is nothing to train on, else None.
    """

    title: str
    summary: Summary
    models: Mapping[str, Mapping[str, Any]]
    rows: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]
    lines: Sequence[str]
    max_dropped: float
    missing: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON holds them."""
        return {"summary": self.summary.to_dict(), "models": dict(self.models), "rows": dict(self.rows)}

    def check(self) -> None:
        """Call it when everything is saved and shown.

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
    """A stage wrote too little; what it did is in `report`, and all its calls are in the journal."""

    def __init__(self, message: str, report: StageReport) -> None:
        super().__init__(message)
        self.report = report
