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
"""A Lightning logger that appends every metric to `metrics.jsonl`, one line per step, as it happens.

    {"step": 12, "train/loss": 1.93, "train/lr": 0.0009, ...}

It is what the pipeline, the tests and a waiting engineer read while a job runs; TensorBoard files need a reader.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from nemo_aligner_cai.training.metrics_file import METRICS_FILE


class JsonlLogger(Logger):
    """Appends metrics to `<directory>/metrics.jsonl`; only rank 0 writes."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._path = directory / METRICS_FILE

    @property
    def name(self) -> str:
        """Lightning's name for this logger."""
        return "jsonl"

    @property
    def version(self) -> str:
        """Lightning asks for one; there is a single file per log directory."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        """No third-party object stands behind this logger."""
        return None

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Not kept: the configuration is written beside the metrics by NeMo."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Append one line; values that are no finite number are written as null."""
        row: dict[str, Any] = {"step": step}
        row.update({key: _number(value) for key, value in metrics.items()})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Opened for each line: a killed job loses nothing, and a reader never sees half a buffer.
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _number(value: Any) -> float | int | None:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None
