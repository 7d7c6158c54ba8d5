# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Conditions on which a comparison fails.

Input:  "harm_rate>+2": B's rate is more than 2 points above A's; "evasion>5": B's rate is above 5 %
Output: Gate("harm_rate>+2", "harmful_compliance", above=True, limit=0.02, relative=True)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.statistics.paired import Difference
from nemo_aligner_cai.report.comparison.results import ResultDifference, mean_of
from nemo_aligner_cai.report.labels import model_label
from nemo_aligner_cai.report.scores import Key, Scores

_GATE = re.compile(r"(\w+)\s*([<>])\s*([+-]?)(\d+(?:\.\d+)?)")
ALIASES = {
    "harm_rate": "harmful_compliance",
    "help_rate": "helpfulness",
    "evasion_rate": "evasion",
    "over_refusal_rate": "over_refusal",
}
"""Short names of metrics."""


@dataclass(frozen=True)
class Gate:
    """A condition on the metric of B's last model, in each way in which it was measured.

    Attributes:
        text: the condition as given.
        metric: the metric.
        above: True if more than the limit fails, False if less.
        limit: a share, or a difference of shares: 0.05 for 5 % or 5 points.
        relative: True if the limit is for the difference B - A, on the prompts that both have; False for B alone.
    """

    text: str
    metric: str
    above: bool
    limit: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read a condition; raises UsageError if it is not one."""
        found = _GATE.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                f"--fail-if {text!r}: not a condition; examples are 'harm_rate>+2' (B is more than 2 points above A) "
                "and 'evasion_rate>5' (B is above 5 %)"
            )
        name, sign, direction, number = found.groups()
        # The nearest share: in floating point 100 * 0.07 is more than 7, but 7 of 100 is not more than 7 %.
        limit = float(Fraction(f"{direction}{number}") / 100)
        return cls(text.strip(), ALIASES.get(name, name), sign == ">", limit, bool(direction))

    def failures(self, results: Sequence[ResultDifference], scores: Mapping[Key, Scores]) -> list[str]:
        """Return a sentence for each group of results in which the condition is met.

        Args:
            results: the differences of both runs.
            scores: B's own.

        Raises:
            UsageError: no result has this metric, or the last model has none to compare.
        """
        last = {key.group: key for key in scores if key.metric == self.metric}
        if not last:
            known = ", ".join(sorted({key.metric for key in scores})) or "none: both runs need results"
            raise UsageError(f"--fail-if {self.text}: no result to check has this metric; there are {known}")
        differences = {one.key: one.difference for one in results}
        values = {key: self._value(key, differences.get(key), scores[key]) for key in last.values()}
        return [self._sentence(key, *found) for key, found in values.items() if self._is_met(found[0])]

    def _value(self, key: Key, difference: Difference | None, own: Scores) -> tuple[float, int]:
        """The value to check, and the number of its prompts."""
        if self.relative and difference is not None:
            return difference.value, difference.prompts
        if self.relative or not own:
            lacks = "A has no result of it on a prompt of B" if own else "none of its replies has a grade"
            model = f"{model_label(key.model)}, B's last model ({key.group})"
            raise UsageError(f"--fail-if {self.text}: cannot be checked for {model}: {lacks}")
        return mean_of(own), len(own)

    def _is_met(self, value: float) -> bool:
        return value > self.limit if self.above else value < self.limit

    def _sentence(self, key: Key, value: float, prompts: int) -> str:
        shown = f"{100 * value:+.1f} points" if self.relative else f"{100 * value:.1f} %"
        return f"{self.text}: {shown} for {model_label(key.model)} ({key.group}, {prompts} prompts)"
