# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a run has done so far, and how it is shown: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from nemo_aligner_cai.models.base import ClientStats

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any currency: read by the model, and written by it."""

    read: float = 0.0
    written: float = 0.0

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Of so many tokens."""
        return (prompt_tokens * self.read + completion_tokens * self.written) / 1e6


@dataclass
class RunStats:
    """Counts of one run: records finished (of which left out); calls answered, reused from the journal, failed.

    `calls` and `reused` count by step. `passed` counts the steps that records have passed, of `steps` each.
    """

    records: int = 0
    left_out: int = 0
    calls: Counter[str] = field(default_factory=Counter[str])
    reused: Counter[str] = field(default_factory=Counter[str])
    failed: int = 0
    thoughts: Counter[str] = field(default_factory=Counter[str])
    passed: int = 0
    steps: int = 1
    started: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class ProgressReporter:
    """Puts a tally into words.

    Attributes:
        stats: of the clients that serve the run.
        total: its records, None where they are not known.
        prices: what tokens cost, None where that is not known.
    """

    stats: Sequence[ClientStats]
    total: int | None = None
    prices: Prices | None = None

    def line(self, tally: RunStats) -> str:
        """One line for people."""
        seconds = max(1e-6, time.monotonic() - tally.started)
        calls, reused = tally.calls.total(), tally.reused.total()
        written = sum(one.completion_tokens for one in self.stats)
        parts = [f"{tally.left_out} left out", f"{calls} calls"]
        for count, what in ((reused, "reused"), (tally.failed, "failed"), (self._sum("retries"), "retries")):
            if count:
                parts.append(f"{count} {what}")
        parts += [f"{self._sum('in_flight')} in flight", f"{calls / seconds:.1f} calls/s"]
        if written:
            parts.append(f"{written / seconds:.0f} tokens/s")
        if self.prices is not None:
            parts.append(f"cost {self.prices.cost(self._sum('prompt_tokens'), written):.2f}")
        if self.total and tally.passed:
            rest = seconds / tally.passed * (self.total * tally.steps - tally.passed)
            parts.append(f"{int(rest) // 60}:{int(rest) % 60:02d} left")
        return ", ".join(parts)

    def _sum(self, name: str) -> int:
        return sum(getattr(one, name) for one in self.stats)


class Progress(Protocol):
    """Whoever wants to know how a run goes."""

    def update(self, tally: RunStats) -> None:
        """Called a few times a second."""
        ...

    def close(self, tally: RunStats) -> None:
        """The run is over."""
        ...


class LogProgress:
    """A log line every few seconds, for files and batch systems."""

    def __init__(self, title: str, meter: ProgressReporter, *, seconds: float = 10.0) -> None:
        """`title` starts each line."""
        self._title, self._meter, self._seconds = title, meter, seconds
        self._next = time.monotonic() + seconds

    def update(self, tally: RunStats) -> None:
        """See `Progress`."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            of = f" of {self._meter.total}" if self._meter.total else ""
            _logger.info("%s: %d%s records, %s", self._title, tally.records, of, self._meter.line(tally))

    def close(self, tally: RunStats) -> None:
        """See `Progress`."""


class BarProgress:
    """A bar on a terminal's standard error."""

    def __init__(self, title: str, meter: ProgressReporter) -> None:
        """`title` stands before the bar."""
        self._meter = meter
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(title, total=meter.total, line="")
        self._bar.start()

    def update(self, tally: RunStats) -> None:
        """See `Progress`."""
        self._bar.update(self._task, completed=tally.records, line=self._meter.line(tally))

    def close(self, tally: RunStats) -> None:
        """See `Progress`."""
        self.update(tally)
        self._bar.stop()


def show_progress(title: str, meter: ProgressReporter) -> Progress:
    """A bar where standard error is a terminal, log lines where not."""
    return BarProgress(title, meter) if sys.stderr.isatty() else LogProgress(title, meter)
