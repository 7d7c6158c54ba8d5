# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Charts of counts: stacked shares, bars with labels, a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nemo_aligner_cai.report.charts.svg import CHARACTER, WIDTH, Plane, Scale, element, legend, line, picture, text

_ROW = 30.0


@dataclass(frozen=True)
class Part:
    """A part of a stacked bar."""

    label: str
    count: int
    color: str


def stacked(rows: Sequence[tuple[str, Sequence[Part]]], title: str) -> Markup:
    """A full-width bar for each row, divided in proportion to its counts, with one legend."""
    left = min(150.0, 14 + CHARACTER * max(len(label) for label, _ in rows))
    # As high as the stage picture next to it, unless there are many rows.
    row = max(_ROW, 250 / len(rows))
    marks: list[Markup] = []
    for number, (label, parts) in enumerate(rows):
        y, total = 6 + row * number, sum(part.count for part in parts)
        marks.append(text(label, left - 10, y + row / 2, anchor="end"))
        x = left
        for part in parts:
            width = (WIDTH - left) * part.count / total if total else 0.0
            marks.append(element("rect", x=x, y=y, width=width, height=row - 10, class_=f"fill {part.color}"))
            share = f"{100 * part.count / total:.0f}%" if total else ""
            if width > CHARACTER * len(share) + 8:
                marks.append(text(share, x + width / 2, y + row / 2 - 1, class_="on-fill", anchor="middle"))
            x += width
    entries = list(dict.fromkeys((part.label, f"fill {part.color}") for _, parts in rows for part in parts))
    named, below = legend(entries, 22 + row * len(rows))
    return picture(14 + row * len(rows) + below, title, [*marks, *named])


@dataclass(frozen=True)
class Bar:
    """A labeled bar: `value` is drawn solid, `rest` after it as an outline; `note` is written at its end."""

    label: str
    value: float
    note: str
    rest: float = 0.0
    color: str = "s1"


def bars(rows: Sequence[Bar], title: str) -> Markup:
    """Horizontal bars on a common scale from 0."""
    left = min(170.0, 14 + CHARACTER * max(len(row.label) for row in rows))
    right = WIDTH - 12 - CHARACTER * max(len(row.note) for row in rows)
    scale = Scale(0, max(row.value + row.rest for row in rows) or 1.0, left, max(right, left + 60))
    marks: list[Markup] = []
    for number, row in enumerate(rows):
        y, end = 4 + _ROW * number, scale(row.value + row.rest)
        marks.append(text(row.label, left - 10, y + 15, anchor="end"))
        marks.append(
            element(
                "rect",
                x=left,
                y=y,
                width=max(1.0, scale(row.value) - left),
                height=20,
                rx=3,
                class_=f"fill {row.color}",
            )
        )
        if row.rest:
            x = scale(row.value)
            marks.append(element("rect", x=x, y=y + 0.5, width=end - x, height=19, class_="lost"))
        marks.append(text(row.note, end + 8, y + 15, class_="value"))
    return picture(8 + _ROW * len(rows), title, marks)


def histogram(counts: Sequence[tuple[float, float, int]], x_title: str, *, middle: float) -> Markup:
    """Adjacent bars of (low, high, count); those below and above `middle` have different colors."""
    height, most = 240.0, max(count for *_, count in counts)
    plane = Plane(
        Scale(counts[0][0], counts[-1][1], 44, WIDTH - 12), Scale(0, most, height - 40, 24), x_title, "pairs"
    )
    marks = plane.axes()
    for low, high, count in counts:
        y, color = plane.y(count), "s0" if low >= middle else "s1"
        width = plane.x(high) - plane.x(low) - 1
        marks.append(element("rect", x=plane.x(low), y=y, width=width, height=plane.y(0) - y, class_=f"fill {color}"))
    marks.append(line(plane.x(middle), 20, plane.x(middle), height - 40, "reference"))
    return picture(height, x_title, marks)
