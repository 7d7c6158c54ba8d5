# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Conditions on which a comparison fails.

Input:  "harm_rate>+2": B's rate is more than 2 points above A's; "evasion>5": B's rate is above 5 %
Output: Gate("harm_rate>+2", "harmful_compliance", above=True, limit=0.02, relative=True)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.report.comparison.results import ResultDifference
from nemo_aligner_cai.report.labels import model_label

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
    """A condition on the last model's metric.

    Attributes:
        text: the condition as given.
        metric: the metric.
        above: True if more than the limit fails, False if less.
        limit: a share, or a difference of shares: 0.05 for 5 % or 5 points.
        relative: True if the limit is for the difference B - A.
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

    def failures(self, results: Sequence[ResultDifference]) -> list[str]:
        """Return a sentence for each group of results in which the condition is met.

        Raises:
            UsageError: no result has this metric.
        """
        found = list(self._of_last_models(results))
        if not found:
            known = ", ".join(sorted({one.key.metric for one in results})) or "none: both runs need results"
            raise UsageError(f"--fail-if {self.text}: no result of both runs has this metric; there are {known}")
        return [self._sentence(one) for one in found if self._is_met(one)]

    def _of_last_models(self, results: Sequence[ResultDifference]) -> Iterator[ResultDifference]:
        last = {one.key.group: one for one in results if one.key.metric == self.metric}
        yield from last.values()

    def _is_met(self, one: ResultDifference) -> bool:
        value = one.difference.value if self.relative else one.b
        return value > self.limit if self.above else value < self.limit

    def _sentence(self, one: ResultDifference) -> str:
        value = f"{100 * one.difference.value:+.1f} points" if self.relative else f"{100 * one.b:.1f} %"
        where = f"{one.key.group}, {one.difference.prompts} prompts"
        return f"{self.text}: {value} for {model_label(one.key.model)} ({where})"
