# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Where CPU time goes, by sampling: the profiler of the standard library doubles the time of what it watches."""

import signal
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

_INTERVAL_S = 0.002


class Samples:
    """Where the process was, every two milliseconds of its CPU time."""

    def __init__(self) -> None:
        """No sample yet."""
        self.total = 0
        self.lines: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()

    def take(self, _: int, frame: FrameType | None) -> None:
        """A signal handler: note the line that runs, and all functions that wait for it."""
        self.total += 1
        if frame is not None:
            self.lines[f"{_where(frame)}:{frame.f_lineno} {frame.f_code.co_name}"] += 1
        inside: set[str] = set()
        while frame is not None:
            inside.add(f"{_where(frame)} {frame.f_code.co_name}")
            frame = frame.f_back
        self.functions.update(inside)

    def show(self, calls: int, seconds: float, most: int = 40) -> None:
        """Print both tables; `calls` and `seconds` (CPU time) turn shares into microseconds for each call."""
        for title, counts in (
            ("lines, by their own time", self.lines),
            ("functions, with all they call", self.functions),
        ):
            table = Table(
                "us/call", "share", "where", title=f"CPU: {title} ({self.total} samples)", title_justify="left"
            )
            for name, count in counts.most_common(most):
                share = count / max(1, self.total)
                table.add_row(f"{1e6 * share * seconds / calls:.1f}", f"{share:.1%}", name)
            Console(width=119).print(table)


@contextmanager
def sampled() -> Generator[Samples, None, None]:
    """Take samples of the main thread in the `with` block."""
    samples = Samples()
    before = signal.signal(signal.SIGPROF, samples.take)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)
    try:
        yield samples
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _where(frame: FrameType) -> str:
    return "/".join(Path(frame.f_code.co_filename).parts[-2:])
