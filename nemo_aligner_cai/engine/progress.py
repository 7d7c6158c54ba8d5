# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The statistics of a run, and their progress display."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nemo_aligner_cai.console.progress import Progress, time_left
from nemo_aligner_cai.models.base import ClientStats


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
    """Shows the statistics of a run.

    Attributes:
        display: shows them; made for the same `total`.
        clients: the statistics of the run's clients.
        total: number of records, if known.
        prices: token prices, if known.
    """

    display: Progress
    clients: Sequence[ClientStats]
    total: int | None = None
    prices: Prices | None = None

    def update(self, stats: RunStats) -> None:
        """Show the statistics."""
        self.display.show(stats.records, self.line(stats))

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
            parts.append(time_left(remaining))
        return ", ".join(parts)

    def _sum(self, name: str) -> int:
        return sum(getattr(client, name) for client in self.clients)
