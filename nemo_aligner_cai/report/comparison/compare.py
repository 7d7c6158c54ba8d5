# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The comparison of two runs.

Input:  two folders of `cai run`
Output: Comparison(settings=[Changed("seed", "1", "2")], results=[ResultDifference(...), ...], ...)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.report.comparison.chains import ChangedChain, changed_chains
from nemo_aligner_cai.report.comparison.results import ResultDifference, only_in_one, result_differences
from nemo_aligner_cai.report.comparison.rows import (
    Labels,
    PromptOverlap,
    RowDifference,
    labels,
    labels_dict,
    prompt_overlaps,
    row_differences,
)
from nemo_aligner_cai.report.comparison.settings import Changed, principles, settings
from nemo_aligner_cai.report.run_folder import Counts, RunFolder
from nemo_aligner_cai.report.scores import Key, Scores, scores_of


@dataclass(frozen=True)
class Comparison:
    """Differences between run A and run B; empty where nothing differs. `scores` are those of each run."""

    a: RunFolder
    b: RunFolder
    settings: list[Changed]
    principles: list[Changed]
    rows: list[RowDifference]
    prompts: list[PromptOverlap]
    labels: Labels | None
    scores: tuple[Mapping[Key, Scores], Mapping[Key, Scores]]
    results: list[ResultDifference]
    chains: list[ChangedChain]

    @property
    def notes(self) -> list[str]:
        """Sentences on the parts that could not be compared."""
        named = (("A", self.a), ("B", self.b))
        unknown = "has no run.json: its settings and principles are unknown."
        return [
            *(f"{name} {unknown}" for name, run in named if not run.settings),
            *(f"{name} is not finished: {len(run.missing)} steps are missing." for name, run in named if run.missing),
            *(f"Only {name} has results of {models}." for name, models in only_in_one(*self.scores)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "a": str(self.a.path),
            "b": str(self.b.path),
            "notes": self.notes,
            "settings": [asdict(one) for one in self.settings],
            "principles": [asdict(one) for one in self.principles],
            "rows": [
                {"step": one.step, "file": one.file, "a": _dumped(one.a), "b": _dumped(one.b)} for one in self.rows
            ],
            "prompts": [asdict(one) for one in self.prompts],
            "labels": labels_dict(self.labels),
            "results": [one.to_dict() for one in self.results],
            "chains": [asdict(one) for one in self.chains],
        }


def _dumped(counts: Counts | None) -> dict[str, Any] | None:
    return counts and counts.model_dump()


def compare(a: RunFolder, b: RunFolder) -> Comparison:
    """Compare two runs.

    Raises:
        UsageError: both have results but no prompt in common, or a file is damaged.
    """
    scores = scores_of(a), scores_of(b)
    try:
        results = result_differences(*scores)
    except UsageError as error:
        raise UsageError(f"{a.path} and {b.path}: {error}") from error
    return Comparison(
        a,
        b,
        scores=scores,
        results=results,
        settings=settings(a, b),
        principles=principles(a, b),
        rows=row_differences(a, b),
        prompts=prompt_overlaps(a, b),
        labels=labels(a, b),
        chains=changed_chains(a, b),
    )
