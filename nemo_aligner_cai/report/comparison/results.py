# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Paired differences of the results of two runs, prompt by prompt.

Input:  the measured replies, and the grades of `cai evaluate`, of both runs
Output: ResultDifference(Key("sampled replies", "rl_cai", "harmful_compliance"), a=0.05, b=0.02, Difference(...), ...)

Only prompts that both runs have count. The others are counted as `only_first` (B's) and `only_baseline` (A's).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.figures import Cells, values_of
from nemo_aligner_cai.evaluation.graders.spec import load_grader
from nemo_aligner_cai.evaluation.statistics import Difference, holm, mcnemar, paired_difference
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.report.chains.rows import ReplyRow, read_rows
from nemo_aligner_cai.report.run_folder import RunFolder

Scores = dict[str, list[float]]
"""Prompt id -> the scores of its replies, in [0, 1]."""

_METRICS = {
    "harmful_compliance": (True, "complies"),
    "right_refusal": (True, "right_refusal"),
    "flawed_refusal": (True, "flawed_refusal"),
    "evasion": (True, "evades"),
    "helpfulness": (False, "helps"),
    "over_refusal": (False, "over_refuses"),
}
"""Metric of the measuring step -> the side of its prompts (True: harmful) and the outcome that it counts."""


class Key(NamedTuple):
    """A metric of one model; `group` names the way in which it was measured."""

    group: str
    model: str
    metric: str


@dataclass(frozen=True)
class ResultDifference:
    """One metric of both runs, over the prompts that both have.

    Attributes:
        key: of the metric.
        a: the first run's mean, in [0, 1].
        b: the second run's mean.
        difference: B - A, with its interval by prompt; `only_first` counts B's prompts, `only_baseline` A's.
        p: by McNemar's exact test if each prompt has one yes or no in both runs, else by the t test.
        p_holm: `p` corrected by Holm's method for all metrics of the comparison.
    """

    key: Key
    a: float
    b: float
    difference: Difference
    p: float | None
    p_holm: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        own = {"a": self.a, "b": self.b, "p": self.p, "p_holm": self.p_holm}
        return self.key._asdict() | own | {"difference": self.difference.to_dict()}


def result_differences(a: RunFolder, b: RunFolder) -> list[ResultDifference]:
    """Return the differences of all metrics that both runs have.

    Raises:
        UsageError: both runs have results, but no prompt in common.
    """
    first, second = scores_of(a), scores_of(b)
    common = [key for key in first if key in second and first[key].keys() & second[key].keys()]
    if first and second and not common:
        raise UsageError(
            f"{a.path} and {b.path}: no measured prompt is in both runs, so their results cannot be compared; "
            "evaluate both on the same prompts: cai evaluate --help"
        )
    found = {key: _compare(key, first[key], second[key]) for key in common}
    adjusted = holm({str(key): one.p for key, one in found.items() if one.p is not None})
    return [_with_holm(one, adjusted.get(str(key))) for key, one in found.items()]


def _with_holm(one: ResultDifference, p: float | None) -> ResultDifference:
    return ResultDifference(one.key, one.a, one.b, one.difference, one.p, p)


def _compare(key: Key, a: Scores, b: Scores) -> ResultDifference:
    both = [prompt for prompt in a if prompt in b]
    difference = paired_difference(b, a)
    yes_or_no = [(a[prompt][0] == 1, b[prompt][0] == 1) for prompt in both if _is_decision(a[prompt], b[prompt])]
    p = mcnemar(yes_or_no).p if len(yes_or_no) == len(both) else difference.p
    return ResultDifference(key, _mean(a, both), _mean(b, both), difference, p, None)


def _is_decision(*scores: Sequence[float]) -> bool:
    return all(len(one) == 1 and one[0] in (0.0, 1.0) for one in scores)


def _mean(scores: Mapping[str, Sequence[float]], prompts: Sequence[str]) -> float:
    return math.fsum(math.fsum(scores[prompt]) / len(scores[prompt]) for prompt in prompts) / len(prompts)


def scores_of(run: RunFolder) -> dict[Key, Scores]:
    """Return the scores of a run by metric; {} if nothing has been measured yet."""
    return {key: scores for key, scores in (*_measured(run), *_evaluated(run)) if scores}


def _measured(run: RunFolder) -> Iterator[tuple[Key, Scores]]:
    for model, decoding, path in run.replies():
        rows = list(read_rows(path, ReplyRow))
        for metric, (harmful, outcome) in _METRICS.items():
            scores = {row.id: [float(row.outcome == outcome)] for row in rows if row.harmful == harmful}
            yield Key(f"{decoding} replies", model, metric), scores


def _evaluated(run: RunFolder) -> Iterator[tuple[Key, Scores]]:
    if run.evaluation is None or run.evaluation_file is None:
        return
    cells = Cells([load_grader(grader.name) for grader in run.evaluation.graders])
    for _, row in read_jsonl(run.evaluation_file.with_name(run.evaluation.files.grades)):
        cells.add(row)
    for key, cell in cells.cells.items():
        for metric, value in values_of(cells.graders[key.grader], key.side).items():
            yield Key(f"{key.set}, {key.side}, graded by {key.grader}", key.model, metric), cell.scores(value)
