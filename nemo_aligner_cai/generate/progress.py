# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""What a run has done so far, and how it is shown: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from nemo_aligner_cai.models.base import ClientStats

_logger = logging.getLogger(__name__)


@dataclass
class Tally:
    """Counts of one run: records finished (of which left out), calls answered, reused from the journal, failed."""

    records: int = 0
    left_out: int = 0
    calls: int = 0
    reused: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    def line(self, stats: Sequence[ClientStats]) -> str:
        """One line for people."""
        seconds = max(1e-6, time.monotonic() - self.started)
        parts = [f"{self.records} records", f"{self.left_out} left out", f"{self.calls} calls"]
        if self.reused:
            parts.append(f"{self.reused} reused")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if retries := sum(one.retries for one in stats):
            parts.append(f"{retries} retries")
        parts += [f"{sum(one.in_flight for one in stats)} in flight", f"{self.calls / seconds:.1f} calls/s"]
        if tokens := sum(one.completion_tokens for one in stats):
            parts.append(f"{tokens / seconds:.0f} tokens/s")
        return ", ".join(parts)


class Progress(Protocol):
    """Whoever wants to know how a run goes."""

    def update(self, tally: Tally, stats: Sequence[ClientStats]) -> None:
        """Called whenever records are finished."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class LogProgress:
    """A log line every few seconds, for files and batch systems."""

    def __init__(self, title: str, *, seconds: float = 10.0) -> None:
        """`title` starts each line."""
        self._title, self._seconds, self._next = title, seconds, time.monotonic() + seconds

    def update(self, tally: Tally, stats: Sequence[ClientStats]) -> None:
        """See `Progress`."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self._seconds
            _logger.info("%s: %s", self._title, tally.line(stats))

    def close(self) -> None:
        """See `Progress`."""


class BarProgress:
    """A bar on a terminal's standard error."""

    def __init__(self, title: str, total: int | None) -> None:
        """`total` is the number of records, None where it is not known."""
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(title, total=total, line="")
        self._bar.start()

    def update(self, tally: Tally, stats: Sequence[ClientStats]) -> None:
        """See `Progress`."""
        self._bar.update(self._task, completed=tally.records, line=tally.line(stats))

    def close(self) -> None:
        """See `Progress`."""
        self._bar.stop()


def show_progress(title: str, total: int | None = None) -> Progress:
    """A bar where standard error is a terminal, log lines where not."""
    return BarProgress(title, total) if sys.stderr.isatty() else LogProgress(title)
