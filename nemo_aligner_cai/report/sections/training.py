# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Training curves of each trainer, and reward against KL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.report.charts.curves import Series, curves, thinned
from nemo_aligner_cai.report.charts.points import path
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.report.sections.section import Section
from nemo_aligner_cai.training.metrics_file import read_metrics

_COLORS = ("s1", "s0", "s2")
_REWARD, _KL = "train_rollouts/rewards", "train_rollouts/init_policy_kl"
_MARGIN = "margin"


@dataclass(frozen=True)
class _Panel:
    """A chart of metrics that share an axis: key -> label."""

    title: str
    axis: str
    lines: Mapping[str, str]


# A panel is drawn for each trainer that logs at least one of its metrics.
_PANELS = (
    _Panel("Loss", "loss", {"train/loss": "training", "val/loss": "validation"}),
    _Panel("Accuracy", "accuracy", {"train/acc": "training", "val/acc": "validation"}),
    _Panel(
        "Margin of chosen over rejected", "reward", {f"train/{_MARGIN}": "training", f"val/{_MARGIN}": "validation"}
    ),
    _Panel("Reward", "reward", {_REWARD: "rollouts", "val_rollouts/rewards": "validation"}),
    _Panel("KL to the initial policy", "KL per token", {_KL: "rollouts"}),
    _Panel(
        "Length of a reply",
        "tokens",
        {"train_rollouts/generation_length": "rollouts", "val_rollouts/generation_length": "validation"},
    ),
    _Panel("Entropy", "scaled entropy", {"train_optim/scaled_entropy": "optimizer"}),
)
Points = dict[str, list[tuple[float, float]]]


def training(run: RunFolder) -> Section:
    """The section on the trainers."""
    lead = (
        "Each trainer's own metrics by step. In PPO a reward that rises with little KL is learning; a KL that rises "
        "while the reward does not is over-optimization of the reward model."
    )
    charts = [chart for step, folder in run.log_folders() for chart in _charts(step.name, folder)]
    missing = "" if charts else "No trainer has logged a step yet."
    return Section("training", "Training", lead, charts, missing=missing)


def _charts(step: str, folder: Path) -> Iterator[Chart]:
    found = read_points(folder)
    for panel in _PANELS:
        lines = [
            Series(label, found[key], color)
            for (key, label), color in zip(panel.lines.items(), _COLORS, strict=False)
            if found.get(key) and any(value for _, value in found[key])
        ]
        if lines:
            yield _chart(f"{panel.title} ({step})", panel, lines)
    if len(found.get(_REWARD, ())) > 1 and len(found.get(_KL, ())) > 1:
        yield _reward_against_kl(step, found)


def _chart(title: str, panel: _Panel, lines: Sequence[Series]) -> Chart:
    rows = [(line.label, *map(_value, _summary(line.points))) for line in lines]
    head = ("values", "first", "last", "lowest", "highest")
    return Chart(title, _last(lines), curves(lines, panel.axis), head, rows)


def _last(lines: Sequence[Series]) -> str:
    ends = ", ".join(f"{line.label} {_value(line.points[-1][1])}" for line in lines)
    return f"At step {lines[0].points[-1][0]:.0f}: {ends}."


def _summary(points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    values = [value for _, value in points]
    return values[0], values[-1], min(values), max(values)


def _value(value: float) -> str:
    return f"{value:.4g}"


def _reward_against_kl(step: str, found: Points) -> Chart:
    rewards, kls = dict(found[_REWARD]), dict(found[_KL])
    both = thinned([(kls[at], rewards[at]) for at in rewards if at in kls], 120)
    rows = [(_value(kl), _value(reward)) for kl, reward in (both[0], both[len(both) // 2], both[-1])]
    caption = "A dot for each step. A path that turns right without rising pays KL for nothing."
    svg = path(both, "KL per token", "reward")
    return Chart(f"Reward against KL ({step})", caption, svg, ("KL: start, middle, end", "reward"), rows)


def read_points(folder: Path) -> Points:
    """Metric -> (step, value) in order; of a step that was repeated after a resumption, the last value counts."""
    found: dict[str, dict[float, float]] = {}
    for row in read_metrics(folder):
        values = row | _margins(row)
        for key, value in values.items():
            if key != "step" and isinstance(value, (int, float)):
                found.setdefault(key, {})[float(values["step"])] = float(value)
    return {key: sorted(points.items()) for key, points in found.items()}


def _margins(row: Mapping[str, Any]) -> dict[str, float]:
    """Mean reward of the chosen minus that of the rejected texts, which trainers log apart."""
    return {
        f"{split}/{_MARGIN}": row[f"{split}/rewards_chosen_mean"] - row[f"{split}/rewards_rejected_mean"]
        for split in ("train", "val")
        if isinstance(row.get(f"{split}/rewards_chosen_mean"), float)
        and isinstance(row.get(f"{split}/rewards_rejected_mean"), float)
    }
