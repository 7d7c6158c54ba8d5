# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rates and means with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from nemo_aligner_cai.errors import CaiError

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` independent prompts, with its 95 % Wilson score interval; all in [0, 1].

    The Wilson interval keeps its coverage near 0 and 1, where CAI's rates are, while the normal interval does not.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, hits: Iterable[bool]) -> Rate:
        """Return the share of true values.

        Raises:
            CaiError: there are no values.
        """
        counted = list(hits)
        if not counted:
            raise CaiError("a rate needs at least one prompt, there are 0")
        return cls.of_share(sum(counted) / len(counted), len(counted))

    @classmethod
    def of_share(cls, value: float, n: float) -> Rate:
        """Return the rate of a share with the precision of `n` independent prompts; `n` need not be an integer."""
        center = (value + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(value * (1 - value) / n + Z_95**2 / (4 * n**2))
        # At 0 and 1 one end equals the value; rounding must not move it past the value.
        return cls(value, max(0.0, min(value, center - half)), min(1.0, max(value, center + half)), round(n))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def rate_dict(rate: Rate | None) -> dict[str, float] | None:
    """Return a rate as JSON values; ``n`` is the effective number of independent values."""
    return rate and asdict(rate)


@dataclass
class ClusteredMean:
    """The mean of values that are clustered by prompt, with its standard error.

    Values of one prompt are correlated, only prompts are independent. The standard error is that of a ratio of two
    sums over prompts (Cochran, Sampling Techniques, 1977, chapter 6). For a share, it determines the effective number
    of independent values, from which the Wilson interval follows (Korn and Graubard, Survey Methodology 24, 1998).
    """

    prompts: int = 0
    count: int = 0
    total: float = 0.0
    _counts_squared: float = 0.0
    _cross: float = 0.0
    _totals_squared: float = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Add the values of one prompt."""
        given = list(values)
        if not given:
            return
        count, total = len(given), math.fsum(given)
        self.prompts += 1
        self.count += count
        self.total += total
        self._counts_squared += count * count
        self._cross += count * total
        self._totals_squared += total * total

    @property
    def mean(self) -> float | None:
        """The mean; None without values."""
        return self.total / self.count if self.count else None

    @property
    def variance(self) -> float:
        """The squared standard error of the mean; 0 without values."""
        mean = self.mean
        if mean is None:
            return 0.0
        squares = self._totals_squared - 2 * mean * self._cross + mean * mean * self._counts_squared
        return max(0.0, squares) / self.count**2

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean (normal); None with fewer than two prompts."""
        if self.mean is None or self.prompts < 2:
            return None
        half = Z_95 * math.sqrt(self.variance)
        return self.mean - half, self.mean + half

    @property
    def rate(self) -> Rate | None:
        """For values of 0 and 1: their share with its interval; None without values."""
        p = self.mean
        if p is None:
            return None
        if not 0.0 < p < 1.0:
            return Rate.of_share(p, self.prompts)  # all values are equal, so the variance carries no information
        spread = p * (1 - p)
        effective = spread / self.variance if self.variance > spread / self.count else self.count
        return Rate.of_share(p, max(1.0, effective))
