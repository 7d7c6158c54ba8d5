# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Paired statistics by another way than the package's: scipy's own tests on numpy arrays."""

from collections.abc import Sequence

import pytest


def expected_difference(hits: Sequence[tuple[bool, bool]]) -> tuple[float, float | None, float | None]:
    """Mean of second - first with scipy's t interval; None where all differences are equal."""
    numpy = pytest.importorskip("numpy")
    stats = pytest.importorskip("scipy.stats")
    differences = numpy.array([float(second) - float(first) for first, second in hits])
    if differences.std() == 0:
        return float(differences.mean()), None, None
    found = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return float(differences.mean()), float(found.low), float(found.high)


def expected_mcnemar(hits: Sequence[tuple[bool, bool]]) -> float:
    """The exact test as scipy's two-sided binomial test of the discordant pairs."""
    stats = pytest.importorskip("scipy.stats")
    first = sum(one and not other for one, other in hits)
    second = sum(other and not one for one, other in hits)
    return float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0
