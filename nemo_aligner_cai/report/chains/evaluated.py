# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chains and scores from the files of `cai evaluate`.

Input:  completions.jsonl: {"model": "rl_cai", "set": "xstest", "side": "benign", "id": "12d4...", "messages": [...],
        "reply": "Sure ..."}; grades.jsonl: {..., "grader": "xstest", "label": "full_compliance", "score": null}
Output: a chain for each prompt, with the reply of each model and its grades
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.evaluation.results import Side
from nemo_aligner_cai.files import Row, read_jsonl
from nemo_aligner_cai.report.chains.chain import Chain, prompt_parts, text_part, title_of, verdicts_part
from nemo_aligner_cai.report.chains.rows import StageRow, read_rows
from nemo_aligner_cai.report.labels import model_label, outcome_label
from nemo_aligner_cai.report.run_folder import RunFolder


class CompletionRow(StageRow):
    """A row of completions.jsonl; `reply` is None if the call failed."""

    model: str
    set: str
    side: Side
    id: str
    sample: int
    messages: tuple[Row, ...]
    reply: str | None


class GradeRow(StageRow):
    """A row of grades.jsonl; `label` is None for a reply without a grade."""

    model: str
    set: str
    side: Side
    id: str
    sample: int
    grader: str
    label: str | None
    score: float | None


def evaluated_chains(run: RunFolder) -> Iterator[Chain]:
    """A chain for each prompt of the evaluation; none without one."""
    completions, grades_file, comparisons = map(run.evaluated, ("completions", "grades", "comparisons"))
    if completions is None or grades_file is None:
        return
    grades: dict[tuple[str, str, str, int], list[GradeRow]] = defaultdict(list)
    for grade in read_rows(grades_file, GradeRow):
        grades[grade.model, grade.set, grade.id, grade.sample].append(grade)
    prompts: dict[tuple[str, str], list[CompletionRow]] = defaultdict(list)
    for row in read_rows(completions, CompletionRow):
        prompts[row.set, row.id].append(row)
    judged = {row["id"]: row for _, row in read_jsonl(comparisons)} if comparisons else {}
    for (name, prompt), rows in prompts.items():
        graded = [(row, grades[row.model, name, prompt, row.sample]) for row in rows]
        chain = _chain(f"{name}/{prompt}", graded)
        yield _with_verdicts(chain, judged[chain.id]) if chain.id in judged else chain


def _chain(name: str, graded: list[tuple[CompletionRow, list[GradeRow]]]) -> Chain:
    first, _ = graded[0]
    parts, tags = prompt_parts(first.messages), [f"{first.side} prompt", f"set {first.set}"]
    for row, grades in graded:
        labels = [(grade.grader, outcome_label(grade.label or "unscored")) for grade in grades]
        badges = [f"{grader}: {label}" for grader, label in labels]
        # The classes of a grader do not say which text is harmless.
        fold = row.side == "harmful"
        parts.append(text_part(model_label(row.model), row.reply or "(the call failed)", badges=badges, fold=fold))
        tags += [f"{model_label(row.model)}: {label} ({grader})" for grader, label in labels]
    return Chain(name, "reply", title_of(first.messages), (), tuple(dict.fromkeys(tags)), tuple(parts))


def _with_verdicts(chain: Chain, row: Row) -> Chain:
    """The chain with the verdicts on its replies; `row` is one of the comparisons file."""
    judged, models = JudgedRow.from_row(row), defaultdict[int, list[str]](list)
    for model, number in row["models"].items():
        models[number].append(model_label(model))
    parts = [verdicts_part(judged, {number: ", ".join(names) for number, names in models.items()})]
    principles = tuple(dict.fromkeys(one.principle for one in judged.verdicts if one.principle))
    return replace(chain, principles=principles, parts=(*chain.parts, *(parts if judged.verdicts else ())))
