# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Line charts of values by step, or by another number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nemo_aligner_cai.report.charts.svg import WIDTH, Plane, Scale, bounds, element, legend, picture

_MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """A line: (step, value) in order of the steps; a single point is drawn as a dot."""

    label: str
    points: Sequence[tuple[float, float]]
    color: str


def curves(series: Sequence[Series], y_title: str, *, x_title: str = "step") -> Markup:
    """Lines over the training step, or over another number, on common axes."""
    height = 250.0
    every = [point for one in series for point in one.points]
    plane = Plane(
        Scale(*bounds([x for x, _ in every]), 52, WIDTH - 12),
        Scale(*bounds([y for _, y in every]), height - 66, 24),
        x_title,
        y_title,
    )
    marks = plane.axes()
    for one in series:
        placed = [(plane.x(x), plane.y(y)) for x, y in thinned(one.points)]
        if len(placed) > 1:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            marks.append(element("polyline", points=points, class_=f"curve {one.color}"))
        if len(placed) < 12:
            marks += [element("circle", cx=x, cy=y, r=4, class_=f"mark {one.color}") for x, y in placed]
    named, below = legend([(one.label, f"mark {one.color}") for one in series], height - 8)
    return picture(height - 18 + below, f"{y_title} by {x_title}", [*marks, *named])


def thinned(points: Sequence[tuple[float, float]], most: int = _MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` points: the means of equal runs of neighbors, so that a long run does not fill the file."""
    size = -(-len(points) // most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
