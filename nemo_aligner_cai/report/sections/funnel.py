# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rows on their way through the run: in, out, and why rows were dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nemo_aligner_cai.report.charts.bars import Bar, bars
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.run_folder import Counts, RunFolder, StepState
from nemo_aligner_cai.report.sections.section import Section, Table

_STAGES = {"revisions.jsonl": "prompts revised", "comparisons.jsonl": "prompts judged"}

_MOST_REASONS = 12
"""Reasons in the chart; its figures have all."""


def funnel(run: RunFolder) -> Section:
    """The section on rows."""
    lead = (
        "Rows in = rows written + rows dropped, with each reason counted. Where one row gives several, both numbers "
        "are shown."
    )
    steps = [
        step for step in run.steps if step.record and (step.record.facts.balances or step.record.facts.generation)
    ]
    if not steps:
        return Section(
            "funnel", "Rows and why they were dropped", lead, missing="No step that makes data is done yet."
        )
    charts = [chart for chart in (_chart(steps), _reasons(steps)) if chart]
    rows = [row for step in steps for name, counts in _counts(step) for row in _rows(step, name, counts)]
    table = Table("Every file", ("step", "file", "rows in", "written", "dropped", "reasons"), rows, words=True)
    return Section("funnel", "Rows and why they were dropped", lead, charts, [table])


def _counts(step: StepState) -> Iterator[tuple[str, Counts]]:
    if step.record and step.record.facts.generation:
        yield "prompts", step.record.facts.generation.balance
    if step.record:
        yield from step.record.facts.balances.items()


def _rows(step: StepState, name: str, counts: Counts) -> Iterator[tuple[str, ...]]:
    dropped = sum(counts.left_out.values())
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.left_out.items())
    made = f"{counts.written:,}" + (f" ({counts.made:,} rows)" if counts.made else "")
    yield step.name, name, f"{counts.rows_in:,}", made, f"{dropped:,}", reasons


def _chart(steps: list[StepState]) -> Chart | None:
    found: list[tuple[str, Counts]] = []
    for step in steps:
        if step.record is None:
            continue
        # Step 1's input files, then each stage's prompts, then the files that trainers read.
        if step.record.facts.generation:
            stage = next((label for file, label in _STAGES.items() if file in step.record.outputs), step.name)
            found.append((stage, step.record.facts.generation.balance))
            made = {"blend", *step.record.outputs}
            found += [(name, counts) for name, counts in step.record.facts.balances.items() if name in made]
        else:
            found += step.record.facts.balances.items()
    if not found:
        return None
    rows = [
        Bar(_short(name), counts.written, _note(counts), counts.rows_in - counts.written) for name, counts in found
    ]
    figures = [(name, f"{counts.rows_in:,}", f"{counts.written:,}", _note(counts)) for name, counts in found]
    title = "Rows in and rows written"
    return Chart(
        title, "Solid: written. Outline: dropped.", bars(rows, title), ("rows of", "in", "written", "dropped"), figures
    )


def _reasons(steps: list[StepState]) -> Chart | None:
    dropped = Counter[str]()
    for step in steps:
        for _, counts in _counts(step):
            dropped.update(counts.left_out)
    if not dropped:
        return None
    found = dropped.most_common(_MOST_REASONS)
    svg = bars([Bar(_short(reason), count, f"{count:,}", color="s0") for reason, count in found], "Dropped rows")
    rows = [(reason, f"{count:,}") for reason, count in dropped.most_common()]
    return Chart("Why rows were dropped", "Over all files and steps.", svg, ("reason", "rows"), rows)


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _note(counts: Counts) -> str:
    dropped = counts.rows_in - counts.written
    return f"{counts.written:,}" + (f" (-{dropped:,})" if dropped else "")
