# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Distribution functions, with types: scipy's are computed in compiled code and have none."""

from scipy import special as _special  # pyright: ignore[reportUnknownVariableType]


def t_quantile(p: float, freedom: float) -> float:
    """Return the value below which a Student t variable lies with probability `p`."""
    return float(_special.stdtrit(freedom, p))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def t_two_sided(t: float, freedom: float) -> float:
    """Return the probability that a Student t variable is at least as far from 0 as `t`."""
    return float(2 * _special.stdtr(freedom, -abs(t)))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def binomial_at_most(k: int, n: int, p: float) -> float:
    """Return the probability of at most `k` successes in `n` trials of probability `p`."""
    return float(_special.bdtr(k, n, p))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
