# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A training says what it resumes and what it saved, and refuses a log folder whose run is finished."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import DictConfig, OmegaConf

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import schedule
from nemo_aligner_cai.training.launch import log_folder
from tests.unit.test_train_inputs import config

LOG_DIR = "exp_manager.explicit_log_dir"


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(logging.getLogger("nemo_aligner_cai"), "propagate", True)
    caplog.set_level(logging.INFO)


def settings(log_dir: Path, **values: Any) -> DictConfig:
    keys = {LOG_DIR: str(log_dir), "exp_manager.resume_if_exists": True, "model.restore_from_path": "a.nemo"}
    return config(keys | values)


def earlier(log_dir: Path, step: int, *, model: bool = True) -> Path:
    (log_dir / "checkpoints" / f"cai_sft--val_loss=1.0-step={step}-consumed_samples=8-epoch=0-last").mkdir(
        parents=True
    )
    (log_dir / "config.yaml").write_text("model: {restore_from_path: b.nemo}\n")
    if model:
        (log_dir / "checkpoints" / "cai_sft.nemo").touch()
    return log_dir / "checkpoints" / "cai_sft.nemo"


@pytest.mark.parametrize("section", ["sft", "rm", "dpo", "ppo"])
def test_b10_a_finished_run_is_not_run_again(tmp_path: Path, section: str) -> None:
    model = earlier(tmp_path, 10)
    with pytest.raises(
        UsageError, match=rf"^exp_manager\.explicit_log_dir=.* 10 steps .*{model}.*trainer\.{section}\."
    ):
        log_folder.check_earlier_run(settings(tmp_path), section, 10)
    with pytest.raises(UsageError):
        log_folder.check_earlier_run(settings(tmp_path), section, 4)


def test_b10_what_is_resumed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log_folder.check_earlier_run(settings(tmp_path), "sft", 10)
    assert not caplog.text
    earlier(tmp_path, 10)
    log_folder.check_earlier_run(settings(tmp_path), "sft", 20)
    assert "at step 10" in caplog.text and "changed since: model.restore_from_path" in caplog.text
    caplog.clear()
    log_folder.check_earlier_run(settings(tmp_path, **{"exp_manager.resume_if_exists": False}), "sft", 10)
    assert not caplog.text


def test_b10_an_interrupted_run_without_a_model_is_resumed(tmp_path: Path) -> None:
    earlier(tmp_path, 10, model=False)
    log_folder.check_earlier_run(settings(tmp_path), "sft", 10)


def test_b10_the_last_line_names_the_model_or_says_that_there_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = earlier(tmp_path, 10)
    log_folder.report(settings(tmp_path), LOG_DIR, time.time() - 5)
    assert caplog.messages == [f"saved: {model}"]
    caplog.clear()
    log_folder.report(settings(tmp_path), LOG_DIR, time.time() + 5)
    assert "nothing saved" in caplog.text and "step 10" in caplog.text
    caplog.clear()
    (tmp_path / "merged.nemo").touch()
    log_folder.report(OmegaConf.create({"output": str(tmp_path / "merged.nemo")}), "output", time.time() - 5)
    assert caplog.messages == [f"saved: {tmp_path / 'merged.nemo'}"]


def test_the_steps_of_a_run() -> None:
    cfg = config({"trainer.sft": {"max_epochs": 3, "max_steps": -1, "limit_train_batches": 1.0}})
    assert schedule.planned_steps(cfg, "sft", 17, 4) == 12
    assert schedule.planned_steps(cfg, "sft", None, 4) is None
    cfg.trainer.sft.max_steps = 5
    assert schedule.planned_steps(cfg, "sft", 17, 4) == 5
