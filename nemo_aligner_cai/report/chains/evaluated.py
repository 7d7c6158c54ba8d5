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

from nemo_aligner_cai.evaluation.graders.spec import EMPTY
from nemo_aligner_cai.evaluation.preferences.compared_rows import ComparedRow, read_compared
from nemo_aligner_cai.evaluation.results import RESULT_FILE, Side
from nemo_aligner_cai.report.chains.chain import Chain, prompt_parts, text_part, title_of, verdicts_part
from nemo_aligner_cai.report.chains.rows import Messages, read_rows
from nemo_aligner_cai.report.labels import model_label, outcome_label
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.sections import LenientModel

_AGAIN = "run `cai evaluate` again with --overwrite"


class CompletionRow(LenientModel):
    """A row of completions.jsonl; `reply` is None if the call failed."""

    model: str
    set: str
    side: Side
    id: str
    sample: int
    messages: Messages
    reply: str | None

    @property
    def shown(self) -> str:
        """The reply, or what stands for it."""
        if self.reply is None:
            return "(the call failed)"
        return self.reply if self.reply.strip() else "(an empty reply)"


class GradeRow(LenientModel):
    """A row of grades.jsonl; `label` is None for a reply without a grade."""

    model: str
    set: str
    side: Side
    id: str
    sample: int
    grader: str
    label: str | None
    score: float | None


def read_grades(run: RunFolder) -> Iterator[GradeRow]:
    """The grades of the evaluation; none without one.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row is no grade, or is one of a model, set, grader or class that evaluation.json does not have.
    """
    file, evaluation = run.evaluated("grades"), run.evaluation
    if file is None or evaluation is None:
        return
    models = {model.name for model in evaluation.models}
    groups = {(one.set, one.side, one.grader) for one in evaluation.results}
    labels = {grader.name: (None, EMPTY, *grader.classes) for grader in evaluation.graders}

    def check(row: GradeRow) -> str | None:
        is_known = row.model in models and (row.set, row.side, row.grader) in groups
        if is_known and row.label in labels[row.grader]:
            return None
        grade = f"{row.label!r} by {row.grader} on {row.set}, {row.side}, for {row.model}"
        return f"the grade {grade} is not of the evaluation in {RESULT_FILE}; {_AGAIN}"

    yield from read_rows(file, GradeRow, check)


def graded_replies(run: RunFolder) -> Iterator[tuple[CompletionRow, list[GradeRow]]]:
    """Each reply of the evaluation with its grades; none without one."""
    completions = run.evaluated("completions")
    if completions is None:
        return
    grades: dict[tuple[str, str, str, int], list[GradeRow]] = defaultdict(list)
    for grade in read_grades(run):
        grades[grade.model, grade.set, grade.id, grade.sample].append(grade)
    for row in read_rows(completions, CompletionRow):
        yield row, grades[row.model, row.set, row.id, row.sample]


def evaluated_chains(run: RunFolder) -> Iterator[Chain]:
    """A chain for each prompt of the evaluation; none without one."""
    prompts: dict[tuple[str, str], list[tuple[CompletionRow, list[GradeRow]]]] = defaultdict(list)
    for row, grades in graded_replies(run):
        prompts[row.set, row.id].append((row, grades))
    path = run.evaluated("comparisons")
    compared = {row.judged.id: row for row in read_compared(path)} if path else {}
    for (name, prompt), graded in prompts.items():
        chain = _chain(f"{name}/{prompt}", graded)
        yield _with_verdicts(chain, compared[chain.id]) if chain.id in compared else chain


def _chain(name: str, graded: list[tuple[CompletionRow, list[GradeRow]]]) -> Chain:
    first, _ = graded[0]
    parts, tags = prompt_parts(first.messages), [f"{first.side} prompt", f"set {first.set}"]
    for row, grades in graded:
        labels = [(grade.grader, outcome_label(grade.label or "unscored")) for grade in grades]
        badges = [f"{grader}: {label}" for grader, label in labels]
        # The classes of a grader do not say which text is harmless.
        fold = row.side == "harmful"
        parts.append(text_part(model_label(row.model), row.shown, badges=badges, fold=fold))
        tags += [f"{model_label(row.model)}: {label} ({grader})" for grader, label in labels]
    return Chain(name, "reply", title_of(first.messages), (), tuple(dict.fromkeys(tags)), tuple(parts))


def _with_verdicts(chain: Chain, row: ComparedRow) -> Chain:
    """The chain with the verdicts on its replies."""
    judged, models = row.judged, defaultdict[int, list[str]](list)
    for model, number in row.models.items():
        models[number].append(model_label(model))
    parts = [verdicts_part(judged, {number: ", ".join(names) for number, names in models.items()})]
    principles = tuple(dict.fromkeys(one.principle for one in judged.verdicts if one.principle))
    return replace(chain, principles=principles, parts=(*chain.parts, *(parts if judged.verdicts else ())))
