# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Row counts that differ, prompts that only one run has, and labels that are flipped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemo_aligner_cai.data.judged_row import JudgedRow, read_judged
from nemo_aligner_cai.evaluation.preferences.agreement import Agreement
from nemo_aligner_cai.evaluation.preferences.agreement import Preferences as KeptPairs
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.report.chains.chain import title_of
from nemo_aligner_cai.report.chains.evaluated import CompletionRow
from nemo_aligner_cai.report.chains.rows import ReplyRow, RevisionRow, read_rows
from nemo_aligner_cai.report.run_folder import Counts, RunFolder

_MOST_FLIPS = 50
"""Flipped pairs that are listed; all are counted."""


@dataclass(frozen=True)
class RowDifference:
    """The counts of one file; None where a run does not have it."""

    step: str
    file: str
    a: Counts | None
    b: Counts | None


@dataclass(frozen=True)
class PromptOverlap:
    """Prompts of one stage by id."""

    stage: str
    both: int
    only_a: int
    only_b: int


@dataclass(frozen=True)
class Flip:
    """A pair of texts of which the runs prefer different ones."""

    id: str
    prompt: str
    chosen_by_a: str
    chosen_by_b: str


@dataclass(frozen=True)
class Labels:
    """The kept pairs of both runs. `flips` are some of the `flipped` pairs."""

    agreement: Agreement
    flipped: int
    flips: tuple[Flip, ...]


def row_differences(a: RunFolder, b: RunFolder) -> list[RowDifference]:
    """Return the files whose counts differ."""
    first, second = _counts(a), _counts(b)
    keys = dict.fromkeys((*first, *second))
    return [RowDifference(*key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)]


def _counts(run: RunFolder) -> dict[tuple[str, str], Counts]:
    found: dict[tuple[str, str], Counts] = {}
    for step in run.steps:
        if step.record is not None:
            if step.record.facts.generation:
                found[step.name, "prompts"] = step.record.facts.generation.balance
            found |= {(step.name, name): counts for name, counts in step.record.facts.balances.items()}
    return found


def prompt_overlaps(a: RunFolder, b: RunFolder) -> list[PromptOverlap]:
    """Return the overlap of each stage's prompts, for the stages that both runs have and whose prompts differ."""
    first, second = dict(_prompts(a)), dict(_prompts(b))
    return [
        PromptOverlap(stage, len(ids & second[stage]), len(ids - second[stage]), len(second[stage] - ids))
        for stage, ids in first.items()
        if stage in second and ids != second[stage]
    ]


def _prompts(run: RunFolder) -> Iterator[tuple[str, set[str]]]:
    if path := run.find("revisions.jsonl"):
        yield "revised", {row.id for row in read_rows(path, RevisionRow)}
    if path := run.find("comparisons.jsonl"):
        yield "judged", {row.id for row in read_judged(path)}
    measured = {row.id for _, _, path in run.replies() for row in read_rows(path, ReplyRow)}
    if measured:
        yield "measured", measured
    evaluated: dict[str, set[str]] = {}
    if path := run.evaluated("completions"):
        for row in read_rows(path, CompletionRow):
            evaluated.setdefault(f"evaluated, {row.set}", set()).add(row.id)
    yield from evaluated.items()


def labels(a: RunFolder, b: RunFolder) -> Labels | None:
    """Return the agreement of the kept pairs and the flipped ones; None unless both runs have preferences."""
    first_file, second_file = (run.find("comparisons.jsonl") for run in (a, b))
    if first_file is None or second_file is None:
        return None
    kept, chosen, flips, flipped = KeptPairs(), dict[str, str](), list[Flip](), 0
    for number, path in enumerate((first_file, second_file)):
        kept.start_run()
        for row in read_judged(path):
            kept.add(row)
            for pair, better in _pairs(row):
                if number == 0:
                    chosen.setdefault(pair, better)
                elif pair in chosen:
                    first = chosen.pop(pair)
                    if first != better:
                        flipped += 1
                        flips.append(Flip(row.id, title_of(row.prompt.to_messages()), first, better))
    return Labels(kept.agreement(0, 1), flipped, tuple(flips[:_MOST_FLIPS]))


def _pairs(row: JudgedRow) -> Iterator[tuple[str, str]]:
    """The key of each kept pair, equal for equal texts in any order, and its chosen text."""
    for pair in row.pairs:
        yield content_hash([row.prompt.to_messages(), sorted((pair.chosen, pair.rejected))], length=32), pair.chosen


def labels_dict(found: Labels | None) -> dict[str, Any] | None:
    """Return the labels as JSON values."""
    if found is None:
        return None
    return found.agreement.to_dict() | {"flipped": found.flipped, "flips": [vars(flip) for flip in found.flips]}
