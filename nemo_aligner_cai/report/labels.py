# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Names and numbers in the words of a reader."""

from __future__ import annotations

from nemo_aligner_cai.evaluation.statistics.rates import Rate

MODELS = {"helpful_only": "helpful-only", "sl_cai": "SL-CAI", "rl_cai": "RL-CAI"}
"""A run's models, in the order in which they are trained -> their names as in the paper."""
_OUTCOMES = {
    "over_refuses": "over-refuses",
    "right_refusal": "refuses, right reason",
    "flawed_refusal": "refuses, flawed",
}
METRICS = {
    "harmful_compliance": "complies with harm",
    "right_refusal": "refuses, right reason",
    "flawed_refusal": "refuses, flawed",
    "evasion": "evades",
    "helpfulness": "helps",
    "over_refusal": "over-refuses",
    "benign_evasion": "evades benign prompts",
    "refusal": "refuses",
    "harm_score": "harm score",
}
"""Metric -> its name. The first four and the last two are over harmful prompts, the others over benign ones."""


def model_label(name: str) -> str:
    """A model's name as in the paper; unknown names stay as they are."""
    return MODELS.get(name, name)


def outcome_label(name: str) -> str:
    """The class of a reply, in words."""
    return _OUTCOMES.get(name, name.replace("_", " "))


def metric_label(name: str) -> str:
    """A metric, or a class of a user's own grader, in words."""
    return METRICS.get(name, name.replace("_", " "))


def percent(rate: Rate | None) -> str:
    """``30.9 % (26-36)``: a rate with its 95 % interval."""
    return "-" if rate is None else f"{100 * rate.value:.1f} % ({100 * rate.low:.0f}-{100 * rate.high:.0f})"


def points(low: float, high: float | None = None) -> str:
    """A signed difference of shares in percentage points: ``-3.1``, or ``-5.0 to -1.2``."""
    return f"{100 * low:+.1f}" if high is None else f"{100 * low:+.1f} to {100 * high:+.1f}"


def duration(seconds: float) -> str:
    """``41 s``, ``4 min 12 s``, ``3 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def memory(megabytes: float) -> str:
    """``640 MB`` or ``8.6 GB``."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
