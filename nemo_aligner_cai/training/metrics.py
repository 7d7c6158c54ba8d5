# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A Lightning logger that appends every metric to `metrics.jsonl`, one line per step, as it happens.

    {"step": 12, "train/loss": 1.93, "train/lr": 0.0009, ...}

The pipeline and the tests read it, also while a job runs.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from nemo_aligner_cai.training.metrics_file import METRICS_FILE

_log = logging.getLogger(__name__)
_EVERY_S = 10.0


class _MetricsLogger(Logger):
    """The parts of Lightning's logger interface that a logger of metrics does not need."""

    @property
    def name(self) -> str:
        """The kind of logger."""
        return type(self).__name__

    @property
    def version(self) -> str:
        """Empty: a run has one log directory."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        """None: this logger wraps no third-party object."""
        return None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: NeMo writes the configuration into the log directory."""


class JsonlLogger(_MetricsLogger):
    """Appends metrics to `<directory>/metrics.jsonl`; only rank 0 writes."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._path = directory / METRICS_FILE

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Append one line; values that are not finite numbers are written as null."""
        row: dict[str, Any] = {"step": step}
        row.update({key: _number(value) for key, value in metrics.items()})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Opened for each line: a killed job loses no line, and a reader never sees half a buffer.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class ProgressLogger(_MetricsLogger):
    """Logs a line at the first and last step, after each validation, and every ten seconds; only rank 0 does.

    Attributes:
        total: the number of steps of the whole run; None if unknown.
    """

    def __init__(self, total: int | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.total = total
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._last_line = -math.inf

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log the loss of a step, or the rewards of its rollouts, with the remaining time."""
        if step is None:
            return
        shown = [(key, value) for key in _SHOWN if key in metrics and (value := _number(metrics[key])) is not None]
        if not shown:
            return
        key, value = shown[0]
        if key.startswith("val"):
            _log.info("step %d: %s %.4g", step, key, value)
            return
        # NeMo-Aligner numbers steps from 0.
        done, now = step + 1, self._clock()
        if self._first is None:
            self._first = (done, now)
        if now - self._last_line < _EVERY_S and done != self.total:
            return
        self._last_line = now
        _log.info(
            "step %d%s: %s %.4g%s", done, f" of {self.total}" if self.total else "", key, value, self._left(done)
        )

    def _left(self, done: int) -> str:
        assert self._first is not None  # set by the caller
        start, began = self._first
        if not self.total or done <= start or done >= self.total:
            return ""
        seconds = (self._clock() - began) / (done - start) * (self.total - done)
        return f", {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"


_SHOWN = ("train/loss", "train_rollouts/rewards", "reduced_train_loss", "val/loss", "val_rollouts/rewards", "val_loss")
"""A line shows the first of these that is present."""


def _number(value: Any) -> float | int | None:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None
