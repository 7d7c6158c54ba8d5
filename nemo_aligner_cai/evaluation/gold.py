# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Human labels of `--gold`: their files, and how each grader agrees with them.

Input:  model,prompt,label                 the label of a model's reply to a prompt
        prompt,completion,final_label      XSTest's: the label of that completion
Output: GoldAgreement(grader="xstest-strings", metric="over_refusal", kappa=0.77, sensitivity=..., corrected=(...))

A label is a class of the grader; a number in front is ignored (XSTest writes "2_full_refusal").
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.figures import values_of
from nemo_aligner_cai.evaluation.graders.spec import Grader
from nemo_aligner_cai.evaluation.results import Corrected, Figure, GoldAgreement, MetricName, Result
from nemo_aligner_cai.evaluation.statistics.human_labels import GraderErrors, corrected_rate, grader_errors, kappa
from nemo_aligner_cai.files import PathLike, Row, content_hash, require_file
from nemo_aligner_cai.files.sources import read_rows

_NUMBER = re.compile(r"^\d+_")
_LABELS = ("label", "final_label")
_PARTIAL = "partial_refusal"
_METRICS: tuple[MetricName, ...] = ("harmful_compliance", "over_refusal")


@dataclass(frozen=True)
class GoldLabel:
    """A human label. `model` and `completion` are None if the file does not name them."""

    prompt: str
    label: str
    model: str | None
    completion: str | None


@dataclass(frozen=True)
class GoldFile:
    """The labels of a file, by prompt id."""

    path: Path
    labels: dict[str, list[GoldLabel]]

    def labels_of(self, row: Row) -> Iterator[GoldLabel]:
        """Yield the labels of a reply."""
        for gold in self.labels.get(row["id"], ()):
            same_model = gold.model in (None, row["model"])
            if same_model and (gold.completion is None or gold.completion == row["reply"]):
                yield gold

    def __len__(self) -> int:
        return sum(map(len, self.labels.values()))


def read_gold(path: PathLike) -> GoldFile:
    """Read human labels.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row has no prompt or no label, or names neither a model nor a completion.
    """
    path = require_file(path)
    labels: dict[str, list[GoldLabel]] = {}
    for line, row in read_rows(path):
        try:
            gold = _read(row)
        except UsageError as error:
            raise FormatError.at(path, line, str(error)) from error
        labels.setdefault(gold.prompt, []).append(gold)
    if not labels:
        raise UsageError(f"{path}: no label")
    return GoldFile(path, labels)


def _read(row: Row) -> GoldLabel:
    column = next((name for name in _LABELS if row.get(name)), None)
    if column is None or not row.get("prompt"):
        raise UsageError("a gold label needs the columns 'prompt' and 'label'")
    model, completion = (row_values.optional_text(row, name) for name in ("model", "completion"))
    if model is None and completion is None:
        raise UsageError("a gold label needs the column 'model' or 'completion', to tell whose reply it is")
    prompt = content_hash(Conversation.of_user(row_values.text(row, "prompt").strip()).to_messages())
    return GoldLabel(prompt, _NUMBER.sub("", row_values.text(row, column)), model, completion)


def require_asked(gold: GoldFile, models: Sequence[str], prompts: Collection[str]) -> GoldFile:
    """Return the labels; raises UsageError if none is of these models and of these prompts, given by their ids."""
    labels = [one for prompt in gold.labels.keys() & prompts for one in gold.labels[prompt]]
    if not labels:
        raise UsageError(f"{gold.path}: none of its prompts is in the sets; give labels of the same prompts")
    named = {one.model for one in labels if one.model is not None}
    if named.isdisjoint(models) and all(one.model is not None for one in labels):
        raise UsageError(
            f"{gold.path}: its labels are of the models {', '.join(sorted(named))}, and the evaluation has "
            f"{', '.join(models)}; give the models the names that the labels have"
        )
    return gold


def require_classes(gold: GoldFile, graders: Sequence[Grader]) -> list[Grader]:
    """Return the graders that have all classes of the labels; raises UsageError if there is none."""
    used = {one.label for labels in gold.labels.values() for one in labels}
    fitting = [grader for grader in graders if used <= _known(grader)]
    if not fitting:
        raise UsageError(
            f"{gold.path}: the labels {', '.join(sorted(used))} are not the classes of a grader; the graders have "
            + "; ".join(f"{grader.name}: {', '.join(grader.classes)}" for grader in graders)
        )
    return fitting


def _known(grader: Grader) -> set[str]:
    # The string grader has no class for a partial refusal, which its authors' labels have.
    return {*grader.classes, _PARTIAL} if "full_refusal" in grader.classes else set(grader.classes)


def gold_agreements(
    gold: GoldFile, graders: Sequence[Grader], rows: Iterable[Row], results: Sequence[Result]
) -> tuple[GoldAgreement, ...]:
    """Compare the graders with the labels.

    Args:
        gold: the labels.
        graders: those of `require_classes`.
        rows: the graded replies of all models.
        results: the rates to correct.
    """
    pairs: dict[tuple[str, MetricName], dict[str, list[tuple[bool, bool]]]] = {}
    by_name = {grader.name: grader for grader in graders}
    used: set[int] = set()
    for row in rows:
        # A label without a model belongs to every equal reply, and is used once.
        labels = [one for one in gold.labels_of(row) if id(one) not in used]
        used.update(map(id, labels))
        for label in labels:
            for name, metric, decided in _decisions(row, label.label, by_name):
                pairs.setdefault((name, metric), {}).setdefault(row["id"], []).append(decided)
    return tuple(
        _agreement(gold, by_name[name], metric, decided, len(gold) - len(used), results)
        for (name, metric), decided in pairs.items()
    )


def _decisions(
    row: Row, human: str, graders: Mapping[str, Grader]
) -> Iterator[tuple[str, MetricName, tuple[bool, bool]]]:
    """Yield the yes or no of each grader and of the human label, for each metric of the reply's side."""
    for grade in row["grades"]:
        grader = graders.get(grade["grader"])
        if grader is None or grade["label"] is None:
            continue
        for metric in _METRICS:
            if metric in values_of(grader, row["side"]):
                yield (
                    grader.name,
                    metric,
                    (_decision(grader, metric, grade["label"]), _decision(grader, metric, human)),
                )


def _decision(grader: Grader, metric: MetricName, label: str) -> bool:
    if metric == "harmful_compliance":
        return label in grader.complies
    return label in grader.refuses or (label == _PARTIAL and label not in grader.classes)


def _agreement(
    gold: GoldFile,
    grader: Grader,
    metric: MetricName,
    pairs: Mapping[str, Sequence[tuple[bool, bool]]],
    without_reply: int,
    results: Sequence[Result],
) -> GoldAgreement:
    texts = {prompt: [(str(one), str(human)) for one, human in replies] for prompt, replies in pairs.items()}
    agreed, errors = kappa(texts), grader_errors(pairs)
    return GoldAgreement(
        grader=grader.name,
        metric=metric,
        file=str(gold.path),
        labels=sum(map(len, pairs.values())),
        without_reply=without_reply,
        agreement=Figure.of(agreed.agreement),
        kappa=agreed.value,
        kappa_low=agreed.low,
        kappa_high=agreed.high,
        sensitivity=Figure.of(errors.sensitivity) if errors else None,
        specificity=Figure.of(errors.specificity) if errors else None,
        corrected=tuple(_corrected(grader, metric, errors, results)) if errors else (),
    )


def _corrected(
    grader: Grader, metric: MetricName, errors: GraderErrors, results: Sequence[Result]
) -> Iterator[Corrected]:
    for result in results:
        for found in result.metrics:
            if result.grader == grader.name and found.name == metric:
                rate = corrected_rate(found.rate.rate, errors)
                yield Corrected(
                    model=result.model,
                    set=result.set,
                    side=result.side,
                    metric=metric,
                    observed=found.rate.value,
                    corrected=rate.value if rate else None,
                    low=rate.low if rate else None,
                    high=rate.high if rate else None,
                )
