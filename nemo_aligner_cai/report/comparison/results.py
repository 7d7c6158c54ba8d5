# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Paired differences of the results of two runs, prompt by prompt.

Input:  the measured replies, and the grades of `cai evaluate`, of both runs
Output: ResultDifference(Key("sampled replies", "rl_cai", "harmful_compliance"), a=0.05, b=0.02, Difference(...), ...)

Only prompts that both runs have count. The others are counted as `only_first` (B's) and `only_baseline` (A's).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.statistics.paired import Difference, holm, mcnemar, paired_difference
from nemo_aligner_cai.report.scores import Key, Scores


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
        changed: prompts with another mean score.
    """

    key: Key
    a: float
    b: float
    difference: Difference
    p: float | None
    p_holm: float | None
    changed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        own = {"a": self.a, "b": self.b, "p": self.p, "p_holm": self.p_holm, "changed": self.changed}
        return self.key._asdict() | own | {"difference": self.difference.to_dict()}


def result_differences(first: Mapping[Key, Scores], second: Mapping[Key, Scores]) -> list[ResultDifference]:
    """Return the differences of all metrics that both runs have.

    Raises:
        UsageError: both runs have results, but no model or no prompt in common.
    """
    common = [key for key in first if key in second and first[key].keys() & second[key].keys()]
    if any(first.values()) and any(second.values()) and not common:
        raise UsageError(_nothing_in_common(first, second))
    return _corrected([_compare(key, first[key], second[key]) for key in common])


def only_in_one(first: Mapping[Key, Scores], second: Mapping[Key, Scores]) -> Iterator[tuple[str, str]]:
    """Yield the runs' letter and the models that only this one has measured, if both have measured any."""
    for letter, own, other in (("A", first, second), ("B", second, first)):
        if own and other and (lacking := _measured(own.keys() - other.keys(), own)):
            yield letter, lacking


def _measured(keys: Collection[Key], ordered: Iterable[Key]) -> str:
    return ", ".join(dict.fromkeys(f"{key.model} ({key.group})" for key in ordered if key in keys))


def _nothing_in_common(a: Mapping[Key, Scores], b: Mapping[Key, Scores]) -> str:
    if a.keys() & b.keys():
        return (
            "no measured prompt is in both runs, so their results cannot be compared; evaluate both on the same "
            "prompts: cai evaluate --help"
        )
    return (
        f"no model was measured in the same way in both: A has {_measured(a, a)}; B has {_measured(b, b)}. Give a "
        "model the same name in both, and use the same sets and graders"
    )


def model_differences(scores: Mapping[Key, Scores], baseline: str, model: str) -> list[ResultDifference]:
    """Return the differences of two models of one run, `model` - `baseline`, for each metric that both have."""
    return _corrected(
        [
            _compare(key, scores[key._replace(model=baseline)], own)
            for key, own in scores.items()
            if key.model == model and scores.get(key._replace(model=baseline), {}).keys() & own.keys()
        ]
    )


def _corrected(found: Sequence[ResultDifference]) -> list[ResultDifference]:
    adjusted = holm({str(one.key): one.p for one in found if one.p is not None})
    return [replace(one, p_holm=adjusted.get(str(one.key))) for one in found]


def _compare(key: Key, a: Scores, b: Scores) -> ResultDifference:
    both = [prompt for prompt in a if prompt in b]
    difference = paired_difference(b, a)
    yes_or_no = [(a[prompt][0] == 1, b[prompt][0] == 1) for prompt in both if _is_decision(a[prompt], b[prompt])]
    p = mcnemar(yes_or_no).p if len(yes_or_no) == len(both) else difference.p
    changed = sum(mean_of({prompt: a[prompt]}) != mean_of({prompt: b[prompt]}) for prompt in both)
    first, second = (mean_of({prompt: scores[prompt] for prompt in both}) for scores in (a, b))
    return ResultDifference(key, first, second, difference, p, None, changed)


def _is_decision(*scores: Sequence[float]) -> bool:
    return all(len(one) == 1 and one[0] in (0.0, 1.0) for one in scores)


def mean_of(scores: Scores) -> float:
    """Return the mean over prompts of the mean of their replies' scores."""
    return math.fsum(math.fsum(values) / len(values) for values in scores.values()) / len(scores)
