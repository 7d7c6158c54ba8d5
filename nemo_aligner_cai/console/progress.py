# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The progress of long work: a bar on a terminal, with log lines above it; a log line every ten seconds elsewhere.

Output: SL-CAI: record 120 of 500: 3 dropped, 360 calls, 41.2 calls/s, 95 s left
"""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import TextIO, cast

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

_log = logging.getLogger(__name__)
_EVERY_S = 10.0


class Lines:
    """Logs a line every ten seconds, and one at the end if there was one before."""

    def __init__(self, title: str, unit: str, total: int | None, *, first_s: float = _EVERY_S) -> None:
        """Create a display.

        Args:
            title: precedes each line; may be empty.
            unit: what is counted, in the singular.
            total: the amount of work; None if unknown.
            first_s: seconds until the first line.
        """
        self._prefix = f"{title}: " if title else ""
        self._unit, self._total = unit, total
        self._shown, self._due = False, time.monotonic() + first_s

    def show(self, done: int, text: str) -> None:
        """Log the amount of finished work, and a text, if a line is due."""
        is_last = self._shown and done == self._total
        if is_last or time.monotonic() >= self._due:
            of = f" of {self._total}" if self._total else ""
            self.note(f"{self._unit} {done}{of}: {text}")
            self._shown, self._due = True, math.inf if done == self._total else time.monotonic() + _EVERY_S

    def note(self, text: str) -> None:
        """Log a line in any case."""
        _log.info("%s%s", self._prefix, text)

    def close(self) -> None:
        """Do nothing: every line is complete."""


class Bar:
    """Shows a bar on a terminal; log lines of this package appear above it."""

    def __init__(self, title: str, total: int | None, stream: TextIO) -> None:
        # It is drawn at each update and not by a thread, which would not survive the forks of data workers.
        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=Console(file=stream),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(title, total=total, line="")
        self._handlers = [one for one in _stream_handlers() if one.stream is stream]
        for handler in self._handlers:
            handler.setStream(cast(TextIO, FileProxy(self._bar.console, stream)))
        self._stream = stream
        self._bar.start()

    def show(self, done: int, text: str) -> None:
        """Draw the bar."""
        self._bar.update(self._task, completed=done, line=text, refresh=True)

    def note(self, text: str) -> None:
        """Log a line."""
        _log.info("%s", text)

    def close(self) -> None:
        """End the bar, and give its stream back to the log."""
        self._bar.stop()
        for handler in self._handlers:
            handler.setStream(self._stream)


Progress = Lines | Bar


def open_progress(title: str, unit: str, total: int | None, *, first_s: float = _EVERY_S) -> Progress:
    """Return a bar if this package's log, or standard error without one, is on a terminal; else `Lines`."""
    stream = next((handler.stream for handler in _stream_handlers()), sys.stderr)
    return Bar(title or unit, total, stream) if stream.isatty() else Lines(title, unit, total, first_s=first_s)


def time_left(seconds: float) -> str:
    """A number of seconds in words: ``40 s left``, ``12 min left``."""
    return f"{seconds:.0f} s left" if seconds < 90 else f"{seconds / 60:.0f} min left"


def _stream_handlers() -> list[logging.StreamHandler[TextIO]]:
    handlers: list[logging.StreamHandler[TextIO]] = []
    for logger in (logging.getLogger("nemo_aligner_cai"), logging.getLogger()):
        handlers += [one for one in logger.handlers if type(one) is logging.StreamHandler]
    return handlers
