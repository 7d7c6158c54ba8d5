# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rates with 95 % intervals, and which intervals are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nemo_aligner_cai.errors import CaiError

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` independent prompts, with its 95 % Wilson score interval; all in [0, 1].

    Wilson's interval keeps its coverage near 0 and 1, where CAI's rates lie, and the normal one does not.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, hits: Iterable[bool]) -> Rate:
        """The share of true ones.

        Raises:
            CaiError: there are none to count.
        """
        counted = list(hits)
        if not counted:
            raise CaiError("a rate of zero prompts was asked for; measure at least one prompt")
        return cls.of_share(sum(counted) / len(counted), len(counted))

    @classmethod
    def of_share(cls, value: float, n: float) -> Rate:
        """A share that is as sure as one of `n` independent prompts, which need not be a whole number of them."""
        centre = (value + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(value * (1 - value) / n + Z_95**2 / (4 * n**2))
        # At 0 and 1 one end is the value itself; rounding must not put it on the other side.
        return cls(value, max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half)), round(n))

    def apart_from(self, other: Rate) -> bool:
        """Whether the two intervals have no point in common."""
        return self.high < other.low or other.high < self.low

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"
