# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Read the comparisons of an evaluation.

Input:  {"id": "xstest/12d4...", "candidates": [...], "verdicts": [...], ..., "models": {"sl_cai": 0, "rl_cai": 1}}
Output: ComparedRow(JudgedRow(...), models={"sl_cai": 0, "rl_cai": 1})
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, read_jsonl


@dataclass(frozen=True)
class ComparedRow:
    """One judged prompt. `models` has the index of each model's candidate; equal replies are one candidate."""

    judged: JudgedRow
    models: Mapping[str, int]

    @classmethod
    def from_row(cls, row: Row) -> "ComparedRow":
        """Read a row; raises RowError if it is another row, or its models do not give all of its candidates."""
        judged = JudgedRow.from_row(row)
        models, numbers = row.get("models"), range(len(judged.candidates))
        given = list(cast(dict[str, object], models).values()) if isinstance(models, dict) else []
        if any(type(one) is not int for one in given) or set(given) != set(numbers):
            raise RowError("models", f"must map models to the indices of all {len(numbers)} candidates")
        return cls(judged, cast(dict[str, int], models))


def read_compared(path: PathLike) -> Iterator[ComparedRow]:
    """Read the rows of an evaluation's comparisons.jsonl, one at a time.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row is not a comparison of models.
    """
    for line, row in read_jsonl(path):
        try:
            yield ComparedRow.from_row(row)
        except UsageError as error:
            raise FormatError.at(path, line, f"not a comparison of models: {error}") from error
