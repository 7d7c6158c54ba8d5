# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Progress of a training run: step, loss and time left.

Input:  the metrics of each step, by the trainer itself or read from its metrics.jsonl by the process that waits for it
Output: step 12 of 120: train/loss 1.93, 40 s left
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from nemo_aligner_cai.console.progress import Lines, Progress, open_progress, time_left

_SHOWN = ("train/loss", "train_rollouts/rewards", "reduced_train_loss", "val/loss", "val_rollouts/rewards", "val_loss")
"""A line shows the first of these that is present."""
_ENDED, _FEW_ENDED = "train_rollouts/fraction_of_samples_properly_ended", 0.05
_log = logging.getLogger(__name__)


class TrainingProgress:
    """Shows the steps of one run. `title` precedes each line; it is empty for the trainer's own."""

    def __init__(self, title: str = "") -> None:
        self._title = title
        self._total: int | None = None
        self._first: tuple[int, float] | None = None
        self._few_ended = False
        self._display: Progress = self._lines()

    def _lines(self) -> Lines:
        return Lines(self._title, "step", self._total, first_s=0.0)

    def start(self, total: int) -> None:
        """Set the number of steps of the whole run."""
        self._total = total
        self._display = open_progress(self._title, "step", total, first_s=0.0)

    def update(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Show the loss of a step, or the rewards of its rollouts, with the time left.

        The first step of PPO in which fewer than 5 % of the replies have ended is logged as a warning.

        Args:
            metrics: the metrics of the step.
            step: its number from 0; of a validation, the number of finished steps.
        """
        shown = next((f"{key} {value:.4g}" for key in _SHOWN if (value := metrics.get(key)) is not None), "")
        ended = metrics.get(_ENDED)
        if ended is not None and ended < _FEW_ENDED and not self._few_ended:
            self._few_ended = True
            _log.warning(
                "step %d: only %.1f %% of the replies ended before model.ppo.length_params.max_length, and PPO learns "
                "from no others: allow more tokens, and see that model.ppo.sampling_params.end_strings has the stop "
                "string of the model",
                step + 1,
                100 * ended,
            )
        if shown.startswith("val"):
            self._display.note(f"step {step}: {shown}")
        elif shown:
            done = step + 1
            self._first = self._first or (done, time.monotonic())
            self._display.show(done, shown + self._left(done, *self._first))

    def _left(self, done: int, start: int, began: float) -> str:
        if not self._total or done <= start or done >= self._total:
            return ""
        return f", {time_left((time.monotonic() - began) / (done - start) * (self._total - done))}"

    def close(self) -> None:
        """End the bar; later steps are logged."""
        self._display.close()
        self._display = self._lines()
