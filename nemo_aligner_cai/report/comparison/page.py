# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A comparison as tables, for the terminal and the page, and as an HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.report.charts.points import Shift, shifts
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.comparison.chains import ChangedChain
from nemo_aligner_cai.report.comparison.compare import Comparison
from nemo_aligner_cai.report.comparison.results import ResultDifference
from nemo_aligner_cai.report.comparison.rows import Flip, Labels, RowDifference
from nemo_aligner_cai.report.comparison.settings import Changed
from nemo_aligner_cai.report.comparison.word_diff import word_diff
from nemo_aligner_cai.report.labels import metric_label, model_label, percent, points
from nemo_aligner_cai.report.page.render import render
from nemo_aligner_cai.report.run_folder import Counts
from nemo_aligner_cai.report.sections.section import Section, Table

_COMPARED = 20_000
"""Characters of a text in the page: twenty chains of a megabyte would make a page that opens nowhere."""
_SHOWN = 60
"""Characters of a text in a table of the terminal."""


def comparison_tables(found: Comparison) -> list[Table]:
    """Return the comparison as tables; those without a difference have no rows."""
    return [
        results_table(found.results),
        Table("Settings that differ", ("setting", "A", "B"), list(map(_changed_row, found.settings)), words=True),
        Table("Principles that differ", ("request", "A", "B"), list(map(_changed_row, found.principles)), words=True),
        *_row_tables(found),
        *_label_tables(found.labels),
        Table(
            "Chains that changed most",
            ("chain", "prompt", "text", "A", "B", "words changed"),
            [_chain_row(one) for one in found.chains],
            words=True,
        ),
    ]


def results_table(results: Sequence[ResultDifference]) -> Table:
    """Return the paired differences, B - A, of the metrics in which a prompt differs."""
    differing = [one for one in results if one.changed]
    same = f"; {len(results) - len(differing)} metrics are equal in each" if len(differing) < len(results) else ""
    head = ("model and metric", "A, %", "B, %", "points", "95 % interval", "p (Holm)", "prompts", "only A", "only B")
    return Table(f"Results on the prompts that both have{same}", head, list(map(_result_row, differing)))


def _result_row(one: ResultDifference) -> tuple[str, ...]:
    found = one.difference
    return (
        f"{model_label(one.key.model)} {metric_label(one.key.metric)} ({one.key.group})",
        f"{100 * one.a:.1f}",
        f"{100 * one.b:.1f}",
        points(found.value),
        "-" if found.low is None or found.high is None else points(found.low, found.high),
        "-" if one.p_holm is None else f"{one.p_holm:.3g}",
        f"{found.prompts:,}",
        f"{found.only_baseline:,}",
        f"{found.only_first:,}",
    )


def _changed_row(one: Changed) -> tuple[str, ...]:
    return one.name, *("(none)" if text is None else text for text in (one.a, one.b))


def _row_tables(found: Comparison) -> list[Table]:
    rows = [(f"{one.step}: {one.file}", *_counts_cells(one)) for one in found.rows]
    prompts = [(one.stage, f"{one.both:,}", f"{one.only_a:,}", f"{one.only_b:,}") for one in found.prompts]
    return [
        Table("Rows that differ", ("file", "A", "B"), rows, words=True),
        Table("Prompts that differ", ("prompts", "in both", "only A", "only B"), prompts),
    ]


def _counts_cells(one: RowDifference) -> tuple[str, str]:
    return _counts(one.a), _counts(one.b)


def _counts(counts: Counts | None) -> str:
    if counts is None:
        return "(none)"
    reasons = "".join(f", {count:,} {reason}" for reason, count in counts.left_out.items())
    return f"{counts.rows_in:,} in, {counts.written:,} written{reasons}"


def _label_tables(labels: Labels | None) -> list[Table]:
    if labels is None:
        return []
    found = labels.agreement
    kappa = "-" if found.kappa is None else f"{found.kappa:.2f}"
    rate: Rate | None = found.rate
    row = ("kept pairs", *(f"{n:,}" for n in (found.common, found.only_first, found.only_second, labels.flipped)))
    head = ("labels", "in both", "only A", "only B", "flipped", "same preference", "Cohen's kappa")
    flips = [_flip_row(one) for one in labels.flips]
    return [
        Table("Labels", head, [(*row, percent(rate), kappa)]),
        Table("Flipped pairs", ("prompt", "A prefers", "B prefers"), flips, words=True),
    ]


def _flip_row(one: Flip) -> tuple[str, str, str]:
    return one.prompt, _cut(one.chosen_by_a), _cut(one.chosen_by_b)


def _chain_row(one: ChangedChain) -> tuple[str, ...]:
    # The texts themselves may be harmful: they are in the HTML and JSON forms.
    return one.id, one.prompt, one.text, one.outcome_a, one.outcome_b, f"{100 * one.changed:.0f} %"


def _cut(text: str) -> str:
    line = " ".join(text[: 4 * _SHOWN].split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def comparison_html(found: Comparison) -> str:
    """Return the comparison as one HTML file without a script."""
    return render(
        "compare.html.j2",
        title=f"{found.a.path.resolve().name} and {found.b.path.resolve().name}",
        a=str(found.a.path),
        b=str(found.b.path),
        notes=found.notes,
        results=_results_section(found),
        settings=[(one.name, _changes(one.a, one.b)) for one in found.settings],
        principles=[(one.name, _changes(one.a, one.b)) for one in found.principles],
        rows=Section("rows", "Rows and prompts", "", tables=[table for table in _row_tables(found) if table.rows]),
        labels=Section("labels", "Labels", "", tables=_label_tables(found.labels)[:1]),
        flips=[(one.id, one.prompt, _changes(one.chosen_by_a, one.chosen_by_b)) for one in _flips(found.labels)],
        chains=[(one, _changes(one.a, one.b)) for one in found.chains],
    )


def _flips(labels: Labels | None) -> Sequence[Flip]:
    return labels.flips if labels else ()


def _changes(a: str | None, b: str | None) -> list[tuple[str, str]]:
    first, second = (text if len(text) <= _COMPARED else f"{text[:_COMPARED]}…" for text in (a or "", b or ""))
    return [(kind, text) for kind, text in word_diff(first, second)]


def _results_section(found: Comparison) -> Section:
    lead = (
        "B minus A on the prompts that both runs have, prompt by prompt, with 95 % intervals. An interval that "
        "crosses the line is no difference that these prompts can show."
    )
    if not found.results:
        return Section("results", "Results", lead, missing="Both runs need measured replies for this.")
    table = results_table(found.results)
    groups = dict.fromkeys(one.key.group for one in found.results if one.changed)
    charts = [_chart(group, found.results) for group in groups]
    return Section("results", "Results", lead, charts, [table])


def _chart(group: str, results: Sequence[ResultDifference]) -> Chart:
    marks = [_shift(one) for one in results if one.key.group == group and one.changed]
    title = f"B minus A: {group}"
    rows = [(mark.label, points(mark.value)) for mark in marks]
    return Chart(title, "Percentage points.", shifts(marks, title), ("metric", "points"), rows)


def _shift(one: ResultDifference) -> Shift:
    found = one.difference
    return Shift(
        f"{model_label(one.key.model)} {metric_label(one.key.metric)}",
        found.value,
        found.low,
        found.high,
    )
