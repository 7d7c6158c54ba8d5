# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Figures of an arm without a prompt of their own: kept pairs, the reward model, and what PPO has optimized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.running import run_folder
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.pipeline.layout import PPO, REWARD_MODEL, RL_CAI
from nemo_aligner_cai.pipeline.steps.trainers import LOG_DIR
from nemo_aligner_cai.pipeline.steps.training import last_metrics
from nemo_aligner_cai.training.metrics.files import read_metrics

_LAST = 10
"""Steps of PPO over which its figures are averaged: one has 64 rollouts."""


def facts_of(arm: Arm, output: Path) -> dict[str, float | None]:
    """Return the figures of an arm that has run.

    Returns:
        ``pairs`` kept by the judge, ``reward_accuracy`` on held-out pairs, and of PPO's last ten steps the mean
        ``reward`` of the reward model and ``kl``, from the SL-CAI model; None where there is no such figure.
    """
    folder = run_folder(output, arm.name)
    if "rl_cai" not in arm.models:
        return {}
    rows = list(read_metrics(folder / PPO / LOG_DIR)) if arm.last == PPO else []
    return {
        "pairs": sum(len(row.pairs) for row in read_judged(folder / RL_CAI / "comparisons.jsonl")),
        "reward_accuracy": last_metrics(folder / REWARD_MODEL / LOG_DIR).get("val/acc") if arm.last == PPO else None,
        "reward": _mean_of_last(rows, "train_rollouts/rewards"),
        "kl": _mean_of_last(rows, "train_rollouts/init_policy_kl"),
    }


def _mean_of_last(rows: Iterable[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None][-_LAST:]
    return sum(values) / len(values) if values else None


def seconds(output: Path) -> float:
    """The time of all steps, each counted once, however many arms share it."""
    records = [read_json(path) for path in sorted(output.glob("r*/**/step.json"))]
    return sum({(one["step"], one["inputs"]): one["seconds"] for one in records}.values())
