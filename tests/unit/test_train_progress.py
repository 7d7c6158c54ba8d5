# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The progress lines of a training run."""

import logging

import pytest

pytestmark = pytest.mark.slow  # imports Lightning
pytest.importorskip("lightning", reason="the training extra is not installed")


def test_d11_progress_is_a_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nemo_aligner_cai.training.metrics import ProgressLogger

    monkeypatch.setattr(logging.getLogger("nemo_aligner_cai"), "propagate", True)
    caplog.set_level(logging.INFO)
    now = 100.0
    progress = ProgressLogger(clock=lambda: now)
    progress.total = 50
    for step in range(50):
        progress.log_metrics({"train/loss": 2.0 - step / 100, "train/lr": 1e-6}, step)
        progress.log_metrics({"timers/train_time": 1.0}, step)
        if step == 24:
            progress.log_metrics({"val/loss": 1.5}, step + 1)
        now += 1.0
    lines = caplog.messages
    assert lines[0].startswith("step 1 of 50") and "loss 2" in lines[0] and "left" not in lines[0]
    assert "step 11 of 50" in lines[1] and "39 s left" in lines[1]
    assert any("val/loss 1.5" in line for line in lines)
    assert lines[-1].startswith("step 50 of 50") and "left" not in lines[-1]
    assert len(lines) == 7
