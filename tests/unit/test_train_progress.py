# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The progress of a training run: lines, a bar on a terminal, and the rows that another process writes."""

import io
import json
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_aligner_cai.training.metrics.files import METRICS_FILE, NewRows, read_steps, write_steps
from nemo_aligner_cai.training.metrics.progress import TrainingProgress


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTerminal]:
    """A terminal that receives this package's log lines."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = FakeTerminal()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("nemo_aligner_cai")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    assert handler.stream is stream, "the bar has given the stream back"


def test_d11_progress_is_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("nemo_aligner_cai"), "propagate", True)
    caplog.set_level(logging.INFO)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = TrainingProgress()
    progress.start(50)
    for step in range(50):
        progress.update({"train/loss": 2.0 - step / 100, "train/lr": 1e-6}, step)
        progress.update({"timers/train_time": 1.0}, step)
        if step == 24:
            progress.update({"val/loss": 1.5}, step + 1)
        now += 1.0
    lines = caplog.messages
    assert lines[0].startswith("step 1 of 50") and "loss 2" in lines[0] and "left" not in lines[0]
    assert "step 11 of 50" in lines[1] and "39 s left" in lines[1]
    assert any("val/loss 1.5" in line for line in lines)
    assert lines[-1].startswith("step 50 of 50") and "left" not in lines[-1]
    assert len(lines) == 7


def test_a_title_precedes_the_lines_and_minutes_replace_many_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = TrainingProgress("sft")
    progress.start(1000)
    for step in (0, 1):
        progress.update({"train_rollouts/rewards": 1.25}, step)
        now += 12.0
    assert caplog.messages == [
        "sft: step 1 of 1000: train_rollouts/rewards 1.25",
        "sft: step 2 of 1000: train_rollouts/rewards 1.25, 200 min left",
    ]


def test_a_step_in_which_hardly_any_reply_ended_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    progress = TrainingProgress()
    for step, ended in enumerate((1.0, 0.05, 0.04, 0.0)):
        progress.update({"train_rollouts/fraction_of_samples_properly_ended": ended}, step)
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("step 3: ") and "4.0 %" in warning and "end_strings" in warning


def test_a_terminal_has_a_bar_with_step_loss_and_time_left_and_log_lines_above_it(
    terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = TrainingProgress("sft")
    progress.start(4)
    for step in range(4):
        progress.update({"train/loss": 1.5 - step / 4}, step)
        now += 5.0
        if step == 1:
            logging.getLogger("nemo_aligner_cai.training").info("a line of its own")
            progress.update({"val/loss": 0.5}, 2)
    progress.close()
    shown = terminal.getvalue()
    text = re.sub(r"\x1b\[[\d;]*m", "", shown)
    assert "2/4 train/loss 1.25, 10 s left" in text and "4/4 train/loss 0.75" in text
    assert "a line of its own\n" in shown and "step 2: val/loss 0.5\n" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is hidden once, and shown again"
    progress.close()
    assert terminal.getvalue() == shown


def test_new_rows_are_complete_lines_added_after_the_start(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 0}\n')
    rows = NewRows(tmp_path)
    assert rows.read() == []
    with path.open("a") as file:
        file.write('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in rows.read()] == [1, 2]
    assert rows.read() == []
    with path.open("a") as file:
        file.write('ep": 3}\n')
    assert [row["step"] for row in rows.read()] == [3]


def test_the_file_of_a_resumed_run_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 0}\n{"step": 1}\n')
    rows = NewRows(tmp_path)
    (tmp_path / "run_0").mkdir()
    path.rename(tmp_path / "run_0" / METRICS_FILE)
    assert rows.read() == []
    path.write_text('{"step": 1}\n')
    assert [row["step"] for row in rows.read()] == [1]


def test_the_number_of_steps_is_unknown_until_training_begins(tmp_path: Path) -> None:
    assert read_steps(tmp_path / "log") is None
    write_steps(tmp_path / "log", 120)
    assert read_steps(tmp_path / "log") == 120


@pytest.mark.slow  # imports Lightning
def test_the_trainers_logger_writes_its_steps_and_shows_tensors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("lightning", reason="the training extra is not installed")
    import torch

    from nemo_aligner_cai.training.metrics.loggers import JsonlLogger, ProgressLogger

    caplog.set_level(logging.INFO)
    progress, metrics = ProgressLogger(tmp_path), JsonlLogger(tmp_path)
    progress.start(1)
    for logger in (progress, metrics):
        logger.log_metrics({"train/loss": torch.tensor(0.5), "note": "text", "bad": float("nan")}, 0)
        logger.finalize("success")
    assert read_steps(tmp_path) == 1
    assert caplog.messages == ["step 1 of 1: train/loss 0.5"]
    assert json.loads((tmp_path / METRICS_FILE).read_text()) == {
        "step": 0,
        "train/loss": 0.5,
        "note": None,
        "bad": None,
    }
