# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""SVG elements, scales and axes.

Colors, fonts and line widths are in the page's style sheet, by class: the same chart serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 440
"""Width of a chart in its own units. Text stays readable if a phone shows it at 340 pixels."""
CHARACTER = 6.2
"""Mean width of a character of a label, in the same units."""
_MOST_TICKS = 5


@dataclass(frozen=True)
class Chart:
    """A chart with the figures that it shows.

    Attributes:
        title: of the chart.
        caption: what to read from it, in a sentence.
        svg: the picture.
        head: the columns of the figures, shown as a table on demand.
        rows: the figures, formatted.
    """

    title: str
    caption: str
    svg: Markup
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """An element with escaped attributes and children; `class_` is class, other underscores are hyphens."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup(written), Markup("").join(children))


def _number(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def text(content: str, x: float, y: float, *, class_: str = "label", anchor: str = "start") -> Markup:
    """A line of text."""
    return element("text", content, x=float(x), y=float(y), class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def picture(height: float, label: str, marks: Iterable[Markup]) -> Markup:
    """The whole picture; `label` is read by screen readers."""
    return element("svg", *marks, viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=label, class_="chart")


@dataclass(frozen=True)
class Scale:
    """A linear map of values in [low, high] to coordinates in [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The coordinate of a value; values outside are drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`, at most five steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / _MOST_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [number * step for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest value, moved apart if they are equal."""
    low, high = min(values), max(values)
    if high - low > 1e-12 * max(1.0, abs(low), abs(high)):
        return low, high
    return low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2


@dataclass(frozen=True)
class Plane:
    """Two axes with ticks, grid and titles."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    x_unit: str = ""
    y_unit: str = ""

    def axes(self) -> list[Markup]:
        """The marks of both axes."""
        bottom, left = max(self.y.start, self.y.stop), self.x.start
        marks = [text(self.y_title, 0, 12, class_="axis-title")]
        for value in ticks(self.y.low, self.y.high):
            marks.append(line(left, self.y(value), self.x.stop, self.y(value), "grid"))
            marks.append(text(short(value) + self.y_unit, left - 6, self.y(value) + 4, class_="tick", anchor="end"))
        for value in ticks(self.x.low, self.x.high):
            marks.append(text(short(value) + self.x_unit, self.x(value), bottom + 16, class_="tick", anchor="middle"))
        marks.append(line(left, bottom, self.x.stop, bottom, "axis"))
        marks.append(text(self.x_title, self.x.stop, bottom + 32, class_="axis-title", anchor="end"))
        return marks


def diamond(x: float, y: float, class_: str) -> Markup:
    """A diamond around a point."""
    corners = ((0, -6), (6, 0), (0, 6), (-6, 0))
    return element("polygon", points=" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners), class_=class_)


def legend(entries: Sequence[tuple[str, str]], y: float) -> tuple[list[Markup], float]:
    """A mark and a label for each (label, class), in as many lines as they need; returns the marks and their height.

    The mark is a diamond for a class that begins with "hollow", else a dot.
    """
    marks: list[Markup] = []
    x, row = 4.0, 0
    for label, color in entries:
        width = 28 + CHARACTER * len(label)
        if x + width > WIDTH and x > 4:
            x, row = 4.0, row + 1
        at = y + 18 * row
        dot = element("circle", cx=x + 4, cy=at - 4, r=4, class_=color)
        marks.append(diamond(x + 4, at - 4, color) if color.startswith("hollow") else dot)
        marks.append(text(label, x + 14, at))
        x += width
    return marks, 18.0 * (row + 1)


def short(value: float) -> str:
    """A tick's number in few characters: 0.05, 1200, 3k, 2M."""
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{value / (1e3 if suffix == 'k' else factor):g}{suffix}"
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"
