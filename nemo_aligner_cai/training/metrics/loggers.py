# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Lightning loggers: one shows the progress, one appends every metric to `metrics.jsonl`, a line per step.

    {"step": 12, "train/loss": 1.93, "train/lr": 0.0009, ...}

The pipeline and the tests read it, also while a job runs.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from nemo_aligner_cai.training.metrics.files import METRICS_FILE, write_steps
from nemo_aligner_cai.training.metrics.progress import TrainingProgress


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
    """Shows the progress of the run on this package's log stream; only rank 0 does."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._progress = TrainingProgress()

    @rank_zero_only
    def start(self, steps: int) -> None:
        """Set the number of steps of the whole run, also for the process that waits for this one."""
        write_steps(self._directory, steps)
        self._progress.start(steps)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Show one step."""
        if step is not None:
            self._progress.update({key: _number(value) for key, value in metrics.items()}, step)

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        """End the display; it may be called more than once."""
        self._progress.close()


def _number(value: Any) -> float | int | None:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None
