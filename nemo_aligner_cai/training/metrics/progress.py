# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Progress of a training run: step, loss and time left. A bar on a terminal, log lines elsewhere.

Input:  the metrics of each step, by the trainer itself or read from its metrics.jsonl by the process that waits for it
Output: step 12 of 120: train/loss 1.93, 40 s left
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO, cast

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_log = logging.getLogger(__name__)
_EVERY_S = 10.0
_SHOWN = ("train/loss", "train_rollouts/rewards", "reduced_train_loss", "val/loss", "val_rollouts/rewards", "val_loss")
"""A line shows the first of these that is present."""


@dataclass(frozen=True)
class TrainingStep:
    """A finished step.

    Attributes:
        done: the number of finished steps.
        total: the number of steps of the whole run; None if unknown.
        metric: the name of the metric shown.
        value: its value.
        seconds_left: the estimated time to the end; None if unknown.
    """

    done: int
    total: int | None
    metric: str
    value: float
    seconds_left: float | None

    def __str__(self) -> str:
        of = f" of {self.total}" if self.total else ""
        left = f", {self.left}" if self.left else ""
        return f"step {self.done}{of}: {self.shown}{left}"

    @property
    def shown(self) -> str:
        """The metric and its value."""
        return f"{self.metric} {self.value:.4g}"

    @property
    def left(self) -> str:
        """The time left; empty if unknown."""
        if self.seconds_left is None:
            return ""
        minutes = self.seconds_left / 60
        return f"{minutes:.0f} min left" if self.seconds_left >= 90 else f"{self.seconds_left:.0f} s left"


class _Lines:
    """Logs a line at the first and last step, after each validation, and every ten seconds."""

    def __init__(self, title: str, clock: Callable[[], float]) -> None:
        self._prefix = f"{title}: " if title else ""
        self._clock = clock
        self._last_line = -math.inf

    def show(self, step: TrainingStep) -> None:
        now = self._clock()
        if now - self._last_line >= _EVERY_S or step.done == step.total:
            self._last_line = now
            _log.info("%s%s", self._prefix, step)

    def note(self, text: str) -> None:
        _log.info("%s%s", self._prefix, text)

    def close(self) -> None:
        """Do nothing: every line is complete."""


class _Bar:
    """Shows a bar on a terminal; log lines of this package appear above it."""

    def __init__(self, title: str, total: int, stream: TextIO) -> None:
        # It is drawn at each step and not by a thread, which would not survive the forks of data workers.
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=Console(file=stream),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task(title or "step", total=total, line="")
        self._handlers = [one for one in _stream_handlers() if one.stream is stream]
        for handler in self._handlers:
            handler.setStream(cast(TextIO, FileProxy(self._bar.console, stream)))
        self._stream = stream
        self._bar.start()

    def show(self, step: TrainingStep) -> None:
        line = f"{step.shown}, {step.left}" if step.left else step.shown
        self._bar.update(self._task, completed=step.done, line=line, refresh=True)

    def note(self, text: str) -> None:
        _log.info("%s", text)

    def close(self) -> None:
        self._bar.stop()
        for handler in self._handlers:
            handler.setStream(self._stream)


class TrainingProgress:
    """Shows the steps of one run.

    Args:
        title: precedes each line; empty for the trainer's own.
        clock: the current time in seconds.
    """

    def __init__(self, title: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._clock = clock
        self._total: int | None = None
        self._first: tuple[int, float] | None = None
        self._display: _Lines | _Bar = _Lines(title, clock)

    def start(self, total: int, stream: TextIO | None) -> None:
        """Set the number of steps of the whole run, and show a bar if `stream` is a terminal."""
        self._total = total
        if stream is not None and stream.isatty():
            self._display = _Bar(self._title, total, stream)

    def update(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Show the loss of a step, or the rewards of its rollouts, with the time left.

        Args:
            metrics: the metrics of the step.
            step: its number from 0; of a validation, the number of finished steps.
        """
        shown = next(((key, value) for key in _SHOWN if (value := metrics.get(key)) is not None), None)
        if shown is None:
            return
        if shown[0].startswith("val"):
            self._display.note(f"step {step}: {shown[0]} {shown[1]:.4g}")
            return
        done = step + 1
        if self._first is None:
            self._first = (done, self._clock())
        self._display.show(TrainingStep(done, self._total, *shown, self._left(done, *self._first)))

    def _left(self, done: int, start: int, began: float) -> float | None:
        if not self._total or done <= start or done >= self._total:
            return None
        return (self._clock() - began) / (done - start) * (self._total - done)

    def close(self) -> None:
        """End the bar."""
        self._display.close()
        self._display = _Lines(self._title, self._clock)


def log_stream() -> TextIO | None:
    """Return the stream of this package's log lines; None without one."""
    return next((handler.stream for handler in _stream_handlers()), None)


def _stream_handlers() -> list[logging.StreamHandler[TextIO]]:
    handlers: list[logging.StreamHandler[TextIO]] = []
    for logger in (logging.getLogger("nemo_aligner_cai"), logging.getLogger()):
        handlers += [one for one in logger.handlers if type(one) is logging.StreamHandler]
    return handlers
