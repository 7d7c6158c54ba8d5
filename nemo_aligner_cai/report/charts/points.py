# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Charts of rates with intervals: models in a plane, rows of dots, reliability, a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nemo_aligner_cai.evaluation.statistics.calibration import Bin
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.report.charts.svg import (
    CHARACTER,
    WIDTH,
    Plane,
    Scale,
    bounds,
    diamond,
    element,
    legend,
    line,
    picture,
    short,
    text,
    ticks,
)

_LEFT, _TOP, _BOTTOM = 44.0, 24.0, 40.0
_WIDEST = 190.0
"""Width of the labels to the left of rows."""


@dataclass(frozen=True)
class ModelPoint:
    """A model in the stage picture; rates in [0, 1].

    Attributes:
        label: the model's name.
        harm: over harmful prompts.
        help: over benign prompts.
        evasion: over harmful prompts; None if it was not measured.
    """

    label: str
    harm: Rate
    help: Rate
    evasion: Rate | None


def stage_picture(points: Sequence[ModelPoint]) -> Markup:
    """Harm against help: a dot with both intervals for each model, and a hollow diamond for its evasion."""
    plane = Plane(
        Scale(0, 100, _LEFT, WIDTH - 12),
        Scale(0, 100, 270, _TOP),
        "benign prompts it helps with",
        "of harmful prompts",
        "%",
        "%",
    )
    marks = plane.axes()
    for number, point in enumerate(points):
        marks += _model(plane, point, f"s{number % 5}")
    entries = [(point.label, f"mark s{number % 5}") for number, point in enumerate(points)]
    named, below = legend([*entries, ("evades", "hollow s4")], 328)
    return picture(318 + below, "Harm against help of each model", [*marks, *named])


def _model(plane: Plane, point: ModelPoint, color: str) -> list[Markup]:
    x, y = plane.x(100 * point.help.value), plane.y(100 * point.harm.value)
    marks = [
        line(plane.x(100 * point.help.low), y, plane.x(100 * point.help.high), y, f"interval {color}"),
        line(x, plane.y(100 * point.harm.low), x, plane.y(100 * point.harm.high), f"interval {color}"),
        element("circle", cx=x, cy=y, r=6, class_=f"mark {color}"),
    ]
    if point.evasion is not None:
        marks.append(diamond(x, plane.y(100 * point.evasion.value), f"hollow {color}"))
    return marks


@dataclass(frozen=True)
class Dot:
    """A labeled rate; `rate` is None if there are no values."""

    label: str
    rate: Rate | None
    color: str = "s1"


def dots(rows: Sequence[Dot], title: str, *, chance: float | None = None) -> Markup:
    """A row for each rate: a dot with its interval; `chance`, in [0, 1], is marked by a line."""
    left = min(_WIDEST, 14 + CHARACTER * max(len(row.label) for row in rows))
    step, height = 26.0, 26.0 * len(rows) + _TOP + _BOTTOM
    plane = Plane(Scale(0, 100, left, WIDTH - 44), Scale(0, 1, height - _BOTTOM, _TOP), title, "", "%")
    marks = [mark for mark in plane.axes() if 'class="grid"' not in mark and 'text-anchor="end"' not in mark]
    marks.append(text(title, WIDTH - 44, height - 8, class_="axis-title", anchor="end"))
    if chance is not None:
        marks.append(line(plane.x(100 * chance), _TOP - 6, plane.x(100 * chance), height - _BOTTOM, "reference"))
    for number, row in enumerate(rows):
        y = _TOP + step * (number + 0.5)
        marks.append(line(left, y, WIDTH - 44, y, "grid"))
        marks.append(text(_fitted(row.label, left), left - 10, y + 4, anchor="end"))
        if row.rate is None:
            marks.append(text("no value", WIDTH, y + 4, class_="tick", anchor="end"))
            continue
        low, high = plane.x(100 * row.rate.low), plane.x(100 * row.rate.high)
        marks.append(line(low, y, high, y, f"interval {row.color}"))
        marks.append(element("circle", cx=plane.x(100 * row.rate.value), cy=y, r=5, class_=f"mark {row.color}"))
        marks.append(text(f"{100 * row.rate.value:.1f}", WIDTH, y + 4, class_="value", anchor="end"))
    return picture(height, title, marks)


def _fitted(label: str, width: float) -> str:
    most = int((width - 10) / CHARACTER)
    return label if len(label) <= most else f"{label[: most - 1]}…"


def reliability(bins: Sequence[Bin], x_title: str, y_title: str) -> Markup:
    """Predicted against observed; a calibrated predictor is on the diagonal."""
    height = 320.0
    plane = Plane(Scale(0, 100, _LEFT, WIDTH - 60), Scale(0, 100, height - _BOTTOM, _TOP), x_title, y_title, "%", "%")
    marks = [*plane.axes(), line(plane.x(0), plane.y(0), plane.x(100), plane.y(100), "reference")]
    where = [(plane.x(100 * one.predicted), one.observed) for one in bins]
    marks += [line(x, plane.y(100 * rate.low), x, plane.y(100 * rate.high), "interval s1") for x, rate in where]
    marks.append(_polyline([(x, plane.y(100 * rate.value)) for x, rate in where], "curve s1"))
    marks += [element("circle", cx=x, cy=plane.y(100 * rate.value), r=4.5, class_="mark s1") for x, rate in where]
    return picture(height, f"{y_title} against {x_title}", marks)


def path(points: Sequence[tuple[float, float]], x_title: str, y_title: str) -> Markup:
    """A path through a plane, with its beginning and its end named."""
    height = 300.0
    x_low, x_high = bounds([x for x, _ in points])
    y_low, y_high = bounds([y for _, y in points])
    plane = Plane(
        Scale(x_low, x_high, _LEFT + 8, WIDTH - 40), Scale(y_low, y_high, height - _BOTTOM, _TOP), x_title, y_title
    )
    placed = [(plane.x(x), plane.y(y)) for x, y in points]
    marks = [*plane.axes(), _polyline(placed, "curve s1 thin")]
    marks += [element("circle", cx=x, cy=y, r=2.5, class_="mark s1") for x, y in placed]
    for name, (x, y), color in (("start", placed[0], "s4"), ("end", placed[-1], "s0")):
        marks.append(element("circle", cx=x, cy=y, r=5.5, class_=f"mark {color}"))
        marks.append(text(name, x + 9, y + 4, class_="value"))
    return picture(height, f"{y_title} against {x_title}", marks)


def _polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


@dataclass(frozen=True)
class Shift:
    """A labeled difference of shares, in [-1, 1], with its interval; None where it is unknown."""

    label: str
    value: float
    low: float | None
    high: float | None


def shifts(rows: Sequence[Shift], title: str) -> Markup:
    """A row for each difference: a dot with its interval, and a line at no difference.

    Labels are above their rows if one of them is too long to be to their left.
    """
    widest = 14 + CHARACTER * max(len(row.label) for row in rows)
    above = widest > _WIDEST
    left, step = (14.0, 40.0) if above else (widest, 24.0)
    label_x, label_down, anchor = (0.0, -10, "start") if above else (left - 10, 4, "end")
    ends = [100 * value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    reach = max(1.0, *map(abs, ends))
    height = step * len(rows) + _TOP + _BOTTOM
    scale = Scale(-reach, reach, left, WIDTH - 48)
    marks = [line(scale(0), _TOP - 6, scale(0), height - _BOTTOM, "reference")]
    for value in ticks(-reach, reach):
        marks.append(text(short(value), scale(value), height - _BOTTOM + 16, class_="tick", anchor="middle"))
    for number, row in enumerate(rows):
        y, known = _TOP + step * (number + 1) - 12, row.low is not None and row.high is not None
        crosses = not known or (row.low or 0.0) <= 0 <= (row.high or 0.0)
        color = "s4" if crosses else "s1"
        marks.append(line(left, y, WIDTH - 48, y, "grid"))
        marks.append(text(row.label, label_x, y + label_down, anchor=anchor))
        if row.low is not None and row.high is not None:
            marks.append(line(scale(100 * row.low), y, scale(100 * row.high), y, f"interval {color}"))
        marks.append(element("circle", cx=scale(100 * row.value), cy=y, r=5, class_=f"mark {color}"))
        marks.append(text(f"{100 * row.value:+.1f}", WIDTH, y + 4, class_="value", anchor="end"))
    return picture(height, title, marks)
