# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Training curves of each trainer, and reward against KL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.report.charts.curves import Series, curves, thinned
from nemo_aligner_cai.report.charts.points import path
from nemo_aligner_cai.report.charts.svg import Chart
from nemo_aligner_cai.report.run_folder import RunFolder
from nemo_aligner_cai.report.sections.section import Section
from nemo_aligner_cai.training.curves import Curve, Quantity, Split, read_curves, reward_against_kl

_COLORS = {Split.TRAINING: "s1", Split.VALIDATION: "s0"}


@dataclass(frozen=True)
class _Panel:
    """A chart of one quantity; `training` labels the line of the training data."""

    title: str
    axis: str
    training: str = "training"


# A panel is drawn for each trainer that logs its quantity.
_PANELS: Mapping[Quantity, _Panel] = {
    Quantity.LOSS: _Panel("Loss", "loss"),
    Quantity.ACCURACY: _Panel("Accuracy", "accuracy"),
    Quantity.MARGIN: _Panel("Margin of chosen over rejected", "reward"),
    Quantity.REWARD: _Panel("Reward", "reward", "rollouts"),
    Quantity.KL: _Panel("KL to the initial policy", "KL per token", "rollouts"),
    Quantity.LENGTH: _Panel("Length of a reply", "tokens", "rollouts"),
    Quantity.ENTROPY: _Panel("Entropy of the policy", "nats per token", "optimizer"),
}


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
    found = read_curves(folder)
    for quantity, panel in _PANELS.items():
        lines = [_line(curve, panel) for curve in found if curve.quantity is quantity]
        if lines:
            yield _chart(f"{panel.title} ({step})", panel, lines)
    both = reward_against_kl(found)
    if len(both) > 1:
        yield _reward_against_kl(step, both)


def _line(curve: Curve, panel: _Panel) -> Series:
    label = panel.training if curve.split is Split.TRAINING else curve.split.value
    return Series(label, curve.points, _COLORS[curve.split])


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


def _reward_against_kl(step: str, points: Sequence[tuple[float, float]]) -> Chart:
    both = thinned(points, 120)
    rows = [(_value(kl), _value(reward)) for kl, reward in (both[0], both[len(both) // 2], both[-1])]
    caption = "A dot for each step. A path that turns right without rising pays KL for nothing."
    svg = path(both, "KL per token", "reward")
    return Chart(f"Reward against KL ({step})", caption, svg, ("KL: start, middle, end", "reward"), rows)
