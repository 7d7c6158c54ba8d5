# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Run statistics, and their display: a bar on a terminal, log lines elsewhere."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from nemo_aligner_cai.models.base import ClientStats

_logger = logging.getLogger(__name__)
_LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Prices:
    """Prices of a million tokens, in any currency: read and written by the model."""

    read: float = 0.0
    written: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of these tokens."""
        return (prompt_tokens * self.read + completion_tokens * self.written) / 1e6


@dataclass
class RunStats:
    """Counters of one run.

    Attributes:
        records: finished records, including skipped ones.
        skipped: records dropped.
        calls: calls answered by a server, by step.
        reused: calls found in the journal, by step.
        failed: calls that failed after all retries.
        with_reasoning: replies from which a model's reasoning was removed.
        steps: number of steps.
        steps_done: sum of the steps that all records have passed.
        started: start time.
    """

    records: int = 0
    skipped: int = 0
    calls: Counter[str] = field(default_factory=Counter[str])
    reused: Counter[str] = field(default_factory=Counter[str])
    failed: int = 0
    with_reasoning: int = 0
    steps: int = 1
    steps_done: int = 0
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class ProgressReporter:
    """Formats the statistics of a run.

    Attributes:
        clients: the statistics of the run's clients.
        total: number of records, if known.
        prices: token prices, if known.
    """

    clients: Sequence[ClientStats]
    total: int | None = None
    prices: Prices | None = None

    def line(self, stats: RunStats) -> str:
        """Return one line of text."""
        seconds = max(1e-6, time.monotonic() - stats.started)
        calls, written = stats.calls.total(), self._sum("completion_tokens")
        optional = {"reused": stats.reused.total(), "failed": stats.failed, "retries": self._sum("retries")}
        parts = [f"{stats.skipped} dropped", f"{calls} calls"]
        parts += [f"{count} {name}" for name, count in optional.items() if count]
        parts += [f"{self._sum('in_flight')} in flight", f"{calls / seconds:.1f} calls/s"]
        if written:
            parts.append(f"{written / seconds:.0f} tokens/s")
        if self.prices is not None:
            parts.append(f"cost {self.prices.cost(self._sum('prompt_tokens'), written):.2f}")
        if self.total and stats.steps_done:
            remaining = seconds / stats.steps_done * (self.total * stats.steps - stats.steps_done)
            parts.append(f"{int(remaining) // 60}:{int(remaining) % 60:02d} left")
        return ", ".join(parts)

    def _sum(self, name: str) -> int:
        return sum(getattr(client, name) for client in self.clients)


class LogProgress:
    """Logs a line every few seconds, for files and batch systems."""

    def __init__(self, title: str, reporter: ProgressReporter) -> None:
        self._title, self._reporter = title, reporter
        self._next = time.monotonic() + _LOG_SECONDS

    def update(self, stats: RunStats) -> None:
        """Log a line if it is due."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOG_SECONDS
            of = f" of {self._reporter.total}" if self._reporter.total else ""
            _logger.info("%s: %d%s records, %s", self._title, stats.records, of, self._reporter.line(stats))

    def close(self, stats: RunStats) -> None:
        """Do nothing: the summary follows."""


class BarProgress:
    """Shows a bar on standard error."""

    def __init__(self, title: str, reporter: ProgressReporter) -> None:
        self._reporter = reporter
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(title, total=reporter.total, line="")
        self._bar.start()

    def update(self, stats: RunStats) -> None:
        """Redraw the bar."""
        self._bar.update(self._task, completed=stats.records, line=self._reporter.line(stats))

    def close(self, stats: RunStats) -> None:
        """Draw the bar a last time."""
        self.update(stats)
        self._bar.stop()


Progress = LogProgress | BarProgress


def show_progress(title: str, reporter: ProgressReporter) -> Progress:
    """Return a bar if standard error is a terminal, else log lines."""
    return BarProgress(title, reporter) if sys.stderr.isatty() else LogProgress(title, reporter)
