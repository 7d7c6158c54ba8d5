# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases and MLflow: checks before a run, the trainers' overrides, and the stores of the real libraries."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("omegaconf", reason="the training extra is not installed")

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import Tracking
from nemo_aligner_cai.pipeline.tracking import check, log_run, trainer_overrides
from nemo_aligner_cai.training.config import compose
from tests import wandb_files

KEY = "0123456789abcdef0123456789abcdef01234567"
METRICS: dict[str, Any] = {
    "stages": {"sl_cai": {"greedy": {"evasion": {"value": 0.25, "n": 64}}}},
    "reward_model": {"accuracy": None},
    "seconds": 12.5,
    "versions": {"python": "3.11"},
}
NUMBERS = {"stages/sl_cai/greedy/evasion/value": 0.25, "stages/sl_cai/greedy/evasion/n": 64, "seconds": 12.5}


@pytest.fixture(autouse=True)
def own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def test_it_is_off_by_default(tmp_path: Path) -> None:
    check(Tracking())
    assert trainer_overrides(Tracking(), tmp_path / "run", "3_sft") == ()
    log_run(Tracking(), tmp_path, METRICS, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cai_sft", "cai_reward_model", "cai_ppo_actor", "cai_ppo_critic", "cai_dpo"])
def test_every_trainer_accepts_the_overrides(tmp_path: Path, name: str) -> None:
    overrides = trainer_overrides(Tracking(wandb="my project", mlflow="it's $x"), tmp_path / "run", "3_sft-critic")
    manager = compose(name, [*overrides, "exp_manager.explicit_log_dir=x"]).exp_manager
    assert manager.create_wandb_logger and manager.create_mlflow_logger
    assert manager.wandb_logger_kwargs == {"project": "my project", "name": "run/3_sft-critic", "group": "run"}
    assert manager.mlflow_logger_kwargs.experiment_name == "it's $x"
    assert manager.mlflow_logger_kwargs.tracking_uri == f"file://{tmp_path}/run/mlruns"
    assert manager.mlflow_logger_kwargs.tags == {"trainer": "run/3_sft-critic"}


def test_mlflows_server_is_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    overrides = trainer_overrides(Tracking(mlflow="cai"), tmp_path, "3_sft")
    assert "++exp_manager.mlflow_logger_kwargs.tracking_uri='http://127.0.0.1:5000'" in overrides


@pytest.mark.parametrize("uri", ["", "http://127.0.0.1:5000"])
def test_mlflow_may_write_files_where_it_has_no_server(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    # Set and removed, so that what the check sets is undone after the test.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    check(Tracking(mlflow="cai"))
    assert os.environ.get("MLFLOW_ALLOW_FILE_STORE") == (None if uri else "true")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for tracking, name in ((Tracking(wandb="p"), "wandb"), (Tracking(mlflow="e"), "mlflow")):
        with pytest.raises(UsageError, match=rf"tracking\.{name} .*\.\[tracking\]"):
            check(tracking)


@pytest.mark.parametrize(
    "place", ["me:hunter2@mlflow.example", "hunter2@mlflow.example/", "mlflow.example/?token=hunter2"]
)
def test_a_secret_in_mlflows_address_is_refused_and_not_shown(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://{place}")
    with pytest.raises(UsageError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        check(Tracking(mlflow="cai"))
    assert "hunter2" not in str(refused.value)


CHECK_WANDB = """
from nemo_aligner_cai.pipeline import tracking
tracking.check(tracking.Tracking(wandb="cai"))
"""


@pytest.mark.slow  # imports wandb
@pytest.mark.parametrize("given", [{}, {"WANDB_MODE": "offline"}, {"WANDB_API_KEY": KEY}], ids=str)
def test_wandb_needs_a_key_or_to_be_offline(repo_root: Path, given: dict[str, str]) -> None:
    pytest.importorskip("wandb", reason="the extra tracking is not installed")
    # wandb reads its environment once, so each case has a process of its own.
    env = os.environ | {"PYTHONPATH": str(repo_root)} | given
    done = subprocess.run([sys.executable, "-c", CHECK_WANDB], env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) is bool(given), done.stderr
    assert bool(given) or "NotHere: tracking.wandb: no API key" in done.stderr


@pytest.mark.slow  # starts wandb's service
def test_wandb_offline_has_the_runs_numbers_and_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra tracking is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run = tmp_path / "run"
    run.mkdir()
    log_run(Tracking(wandb="cai"), run, METRICS, {"seed": 1})
    wandb.teardown()  # its service may write the file after the run is finished, at the latest when Python ends
    (stored,) = run.rglob("*.wandb")
    assert wandb_files.summary(stored) == NUMBERS
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.slow  # imports MLflow
def test_mlflows_store_has_the_runs_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow.tracking", reason="the extra tracking is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    run = tmp_path / "run"
    run.mkdir()
    check(Tracking(mlflow="cai"))
    for _ in range(2):
        log_run(Tracking(mlflow="cai"), run, METRICS, {})
    client = mlflow.MlflowClient((run / "mlruns").as_uri())
    first, second = client.search_runs([client.get_experiment_by_name("cai").experiment_id])
    assert first.data.metrics == second.data.metrics == NUMBERS
    assert first.info.run_name == "run/metrics" and first.info.status == "FINISHED"
