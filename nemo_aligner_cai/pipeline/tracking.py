# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases and MLflow as further places for a run's metrics.

Input:  Tracking(wandb="cai", mlflow="cai"), and the metrics of a run
Output: a W&B or MLflow run of each trainer, by NeMo's own loggers, and one with the content of metrics.json

Both libraries read servers and credentials from their own environment variables (WANDB_MODE, WANDB_BASE_URL,
WANDB_API_KEY, MLFLOW_TRACKING_URI, ...), so that no secret is in a configuration, a command line or a log.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from nemo_aligner_cai import extras
from nemo_aligner_cai.console.secrets import secrets_in
from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.pipeline.config import Tracking
from nemo_aligner_cai.training.config import in_quotes

_log = logging.getLogger(__name__)
MLFLOW_URI = "MLFLOW_TRACKING_URI"
MLFLOW_TAG = "trainer"
_ALLOW_FILES = "MLFLOW_ALLOW_FILE_STORE"
"""MLflow 3 opens a store of files only where this variable is true; its other store needs SQLAlchemy and Alembic."""
_OFFLINE = ("offline", "disabled", "dryrun")
_METRICS = "metrics"


def check(tracking: Tracking) -> None:
    """Check what would otherwise fail at the end of the first trainer, and let MLflow write files into the run.

    Raises:
        UsageError: a package is missing, W&B has neither a key nor is offline, or MLflow's address has a secret.
    """
    if tracking.wandb is not None:
        extras.require("tracking.wandb", ("wandb",), "tracking")
        _check_wandb_login()
    if tracking.mlflow is not None:
        extras.require("tracking.mlflow", ("mlflow",), "tracking")
        if not os.environ.get(MLFLOW_URI):
            # The trainers inherit it.
            os.environ.setdefault(_ALLOW_FILES, "true")
        if any(secrets_in([os.environ.get(MLFLOW_URI, "")])):
            raise UsageError(
                f"{MLFLOW_URI} contains a user, a password or a token, which NeMo would log: remove it, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )


def _check_wandb_login() -> None:
    import wandb

    if os.environ.get("WANDB_MODE") not in _OFFLINE and wandb.api.api_key is None:
        raise NotHere(
            "tracking.wandb: no API key of Weights & Biases: set WANDB_API_KEY, call `wandb login`, or set "
            "WANDB_MODE=offline and upload the runs later by `wandb sync`",
            "the variable WANDB_API_KEY",
        )


def trainer_overrides(tracking: Tracking, run: Path, trainer: str) -> tuple[str, ...]:
    """Return the overrides that make a trainer log to the services.

    Args:
        tracking: the services.
        run: the run's folder.
        trainer: the name of its step, or of the trainer in a step with several.
    """
    overrides: list[str] = []
    name = f"{run.name}/{trainer}"
    if tracking.wandb is not None:
        overrides += [
            "exp_manager.create_wandb_logger=true",
            f"exp_manager.wandb_logger_kwargs.project={in_quotes(tracking.wandb)}",
            f"exp_manager.wandb_logger_kwargs.name={in_quotes(name)}",
            f"+exp_manager.wandb_logger_kwargs.group={in_quotes(run.name)}",
        ]
    if tracking.mlflow is not None:
        overrides += [
            "++exp_manager.create_mlflow_logger=true",
            f"++exp_manager.mlflow_logger_kwargs.experiment_name={in_quotes(tracking.mlflow)}",
            f"++exp_manager.mlflow_logger_kwargs.tracking_uri={in_quotes(_mlflow_uri(run))}",
            # NeMo names the run itself, by an empty name for which MLflow draws one.
            f"++exp_manager.mlflow_logger_kwargs.tags={{{MLFLOW_TAG}: {in_quotes(name)}}}",
        ]
    return tuple(overrides)


def _mlflow_uri(run: Path) -> str:
    """Return MLflow's server or store: that of the environment, else a folder of the run."""
    return os.environ.get(MLFLOW_URI) or (run.resolve() / "mlruns").as_uri()


def log_run(tracking: Tracking, run: Path, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Log the content of metrics.json as one run of each service.

    A service that fails is a warning: the run is done, and metrics.json has the same numbers.

    Args:
        tracking: the services.
        run: the run's folder.
        metrics: the metrics; only numbers are logged, by their path, such as stages/sl_cai/greedy/evasion/value.
        settings: the run's configuration.
    """
    figures = dict(_numbers(metrics))
    if tracking.wandb is not None:
        _log_to_wandb(tracking.wandb, run, figures, settings)
    if tracking.mlflow is not None:
        _log_to_mlflow(tracking.mlflow, run, figures)


def _numbers(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of a tree with their path."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(cast(Mapping[str, Any], value), (*path, key))
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield "/".join((*path, key)), value


def _log_to_wandb(project: str, run: Path, figures: Mapping[str, float], settings: Mapping[str, Any]) -> None:
    # Its types are partial.
    wandb: Any = importlib.import_module("wandb")
    try:
        logged = wandb.init(
            project=project,
            name=f"{run.name}/{_METRICS}",
            group=run.name,
            dir=run,
            config=dict(settings),
            settings=wandb.Settings(silent=True),
        )
        logged.summary.update(figures)
        logged.finish()
    except wandb.Error as error:
        _log.warning("Weights & Biases has no metrics of this run: %s", error)


def _log_to_mlflow(experiment: str, run: Path, figures: Mapping[str, float]) -> None:
    # It is not in the tested environment: its versions exclude some of that environment's packages.
    tracking: Any = importlib.import_module("mlflow.tracking")
    exceptions: Any = importlib.import_module("mlflow.exceptions")
    try:
        client = tracking.MlflowClient(_mlflow_uri(run))
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found is not None else client.create_experiment(experiment)
        logged = client.create_run(number, run_name=f"{run.name}/{_METRICS}").info.run_id
        for name, value in figures.items():
            client.log_metric(logged, name, value)
        client.set_terminated(logged)
    except exceptions.MlflowException as error:
        _log.warning("MLflow has no metrics of this run, or not all: %s", error)
