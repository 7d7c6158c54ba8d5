# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tables, the figure and the JSON of the arms that have run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table

from benchmarks.ablations.arms import Arm
from benchmarks.ablations.facts import facts_of, seconds
from benchmarks.ablations.findings import Compared, compared
from benchmarks.ablations.scores import ACCURACY, JUDGE, METRICS, Measured, Scores, model_name, scores_of
from benchmarks.table import conditions, list_table
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, Rate
from nemo_aligner_cai.files import atomic_writer, write_json
from nemo_aligner_cai.pipeline.steps.measure import DECODINGS
from nemo_aligner_cai.report.charts.points import Shift, shifts
from nemo_aligner_cai.report.page import render

_COMPARED = ("comparison", "arm", "baseline", "difference [95 %]", "paper", "here")
_ARMS = ("arm", "model", "complies", "right", "flawed", "evades", "helps", "over-refuses")
_FACTS = ("arm", "pairs", "judge right", "reward model right", "reward", "KL")
_NOTES = (
    "percent of held-out prompts, at temperature 1 unless greedy; of the run's own prompts for revisions and judge",
    "intervals are over prompts: one run of each arm, so the spread between training runs is not in them",
)


def svg_file(chart: Markup) -> str:
    """Return the content of an SVG file of a chart, with the report's styles in it."""
    styles = Path(render.__file__).with_name("report.css").read_text(encoding="utf-8")
    style = Markup("<style>{}</style>").format(Markup(styles))
    opening, rest = chart.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


class Results:
    """The figures of the arms that have run.

    Attributes:
        arms: in the order in which they ran.
        scores: by measurement.
        facts: by arm.
        compared: the comparisons between them.
        seconds: the time of all steps.
    """

    def __init__(self, arms: Sequence[Arm], output: Path) -> None:
        self.arms = tuple(arms)
        self.scores = {key: found for arm in arms for key, found in scores_of(arm, output).items()}
        self.facts = {arm.name: facts_of(arm, output) for arm in arms}
        self.compared = compared(self.scores)
        self.seconds = seconds(output)

    @property
    def controls_hold(self) -> bool:
        """True unless a control that has run disagrees, or shows nothing."""
        return all(one.verdict == "agrees" for one in self.compared if one.comparison.is_control)

    def rate(self, key: Measured) -> Rate | None:
        """The rate of a measurement; None if it is not there."""
        return rate_of(self.scores.get(key, {}))

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON values."""
        return {
            "arms": {arm.name: {"title": arm.title} | self.facts[arm.name] for arm in self.arms},
            "rates": [key._asdict() | _rate_dict(self.rate(key)) for key in self.scores],
            "comparisons": [one.to_dict() for one in self.compared],
            "seconds": self.seconds,
            "notes": [*_NOTES, conditions()],
        }

    def write(self, output: Path) -> None:
        """Write ``ablations.json``, ``ablations.rst`` and ``ablations.svg``, replacing earlier ones."""
        write_json(output / "ablations.json", self.to_dict(), overwrite=True)
        tables = ["\n".join(list_table([headings, *rows])) for headings, rows in self._tables()]
        text = "\n\n".join([*tables, "\n".join(f"- {note}" for note in self._notes())])
        with atomic_writer(output / "ablations.rst", overwrite=True) as file:
            file.write(f"{text}\n".encode())
        if self.compared:
            with atomic_writer(output / "ablations.svg", overwrite=True) as file:
                file.write(svg_file(self._figure()).encode())

    def _figure(self) -> Markup:
        found = [(one.comparison.title, one.difference) for one in self.compared]
        rows = [Shift(title, difference.value, difference.low, difference.high) for title, difference in found]
        return shifts(rows, "Difference in points, with its 95 % interval")

    def show(self) -> None:
        """Print the tables."""
        console = Console()
        console = console if console.is_terminal else Console(width=160)
        for headings, rows in self._tables():
            table = Table(*headings)
            for row in rows:
                table.add_row(*row)
            console.print(table)
        console.print("\n".join(self._notes()), highlight=False, markup=False)

    def _notes(self) -> list[str]:
        return [*_NOTES, f"{self.seconds / 60:.0f} minutes in all steps", conditions()]

    def _tables(self) -> list[tuple[Sequence[str], list[tuple[str, ...]]]]:
        judged = [arm for arm in self.arms if self.facts[arm.name]]
        return [
            (_COMPARED, [_compared_row(one) for one in self.compared]),
            (
                _ARMS,
                [
                    self._model_row(arm, model, decoding)
                    for decoding in DECODINGS
                    for arm in self.arms
                    for model in arm.models
                ],
            ),
            (_FACTS, [self._fact_row(arm) for arm in judged]),
        ]

    def _model_row(self, arm: Arm, model: str, decoding: str) -> tuple[str, ...]:
        name = model_name(model, decoding)
        rates = (self.rate(Measured(arm.name, name, metric)) for metric in METRICS)
        return (arm.title, name, *(str(rate) if rate else "-" for rate in rates))

    def _fact_row(self, arm: Arm) -> tuple[str, ...]:
        facts = self.facts[arm.name]
        accuracy = self.rate(Measured(arm.name, JUDGE, ACCURACY))
        shown = (_number(facts[key], scale, form) for key, scale, form in _SHOWN)
        pairs, *others = shown
        return (arm.title, pairs, str(accuracy) if accuracy else "-", *others)


_SHOWN = (("pairs", 1, ".0f"), ("reward_accuracy", 100, ".1f"), ("reward", 1, ".2f"), ("kl", 1, ".3f"))


def rate_of(scores: Scores) -> Rate | None:
    """Return the mean of scores of 0 and 1, with its interval over prompts; None without scores."""
    mean = ClusteredMean()
    for values in scores.values():
        mean.add(values)
    return mean.rate


def _rate_dict(rate: Rate | None) -> dict[str, Any]:
    return asdict(rate) if rate else {}


def _compared_row(one: Compared) -> tuple[str, ...]:
    own, difference = one.comparison, one.difference
    interval = "" if difference.low is None else f" [{_points(difference.low)}, {_points(difference.high)}]"
    paper = f"{own.expected} ({own.source})" if own.expected else "-"
    return (
        own.title,
        f"{100 * one.arm:.1f}",
        f"{100 * one.baseline:.1f}",
        f"{_points(difference.value)}{interval}",
        paper,
        one.verdict,
    )


def _points(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f}"


def _number(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None else format(scale * value, form)
