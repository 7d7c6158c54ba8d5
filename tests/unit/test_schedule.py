# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Schedules on which upstream fails after a step are refused before the first."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import DictConfig, OmegaConf

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import schedule

_GOOD = {
    **{"max_epochs": 1, "max_steps": -1, "save_interval": 50, "val_check_interval": 25},
    **{"limit_train_batches": 1.0, "limit_val_batches": 40},
}


def config(section: str, max_time: object = None, **changes: Any) -> DictConfig:
    tree = {"trainer": {section: _GOOD | changes}, "exp_manager": {"max_time_per_run": max_time}}
    return OmegaConf.create(tree)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"max_steps": 0}, r"^trainer\.rm\.max_steps=0: "),
        ({"max_steps": None}, r"^trainer\.rm\.max_steps=None: "),
        ({"max_steps": 1.5}, r"^trainer\.rm\.max_steps=1\.5: "),
        ({"save_interval": 0}, ""),
        ({"save_interval": -1}, r"^trainer\.rm\.save_interval=-1: "),
        ({"save_interval": None}, r"^trainer\.rm\.save_interval=None: "),
        ({"save_interval": 0.5}, r"^trainer\.rm\.save_interval=0\.5: "),
        ({"val_check_interval": None}, r"^trainer\.rm\.val_check_interval=None: .* fraction "),
        ({"val_check_interval": 0.3}, ""),
        ({"val_check_interval": 0}, ""),
        ({"val_check_interval": 20}, r"^trainer\.rm\.save_interval=50 .*val_check_interval=20$"),
        # No validation, so nothing is due between two.
        ({"val_check_interval": 20, "limit_val_batches": 0}, ""),
        ({"limit_val_batches": -1}, r"^trainer\.rm\.limit_val_batches=-1: "),
        ({"limit_val_batches": "all"}, r"^trainer\.rm\.limit_val_batches=all: "),
        ({"limit_val_batches": None, "limit_train_batches": -1}, ""),
        ({"limit_train_batches": "all"}, r"^trainer\.rm\.limit_train_batches=all: "),
        ({"max_time": "00:03:45:00"}, ""),
        ({"max_time": "3:45:00"}, r"^exp_manager\.max_time_per_run=3:45:00 \(trainer\.max_time\): .*days:hours:"),
        ({"max_time": 3600}, r"^exp_manager\.max_time_per_run=3600 "),
    ],
)
def test_intervals_and_limits(changes: dict[str, Any], message: str) -> None:
    if not message:
        schedule.check(config("rm", **changes), "rm")
        return
    with pytest.raises(UsageError, match=message):
        schedule.check(config("rm", **changes), "rm")


def test_ppo_counts_in_steps() -> None:
    schedule.check(config("ppo"), "ppo")
    # Upstream's PPO would take it for a part of a step, and validate after each.
    with pytest.raises(UsageError, match=r"^trainer\.ppo\.val_check_interval=0\.5: "):
        schedule.check(config("ppo", val_check_interval=0.5), "ppo")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        # 400 samples are 100 steps of 4.
        ({"val_check_interval": 0.25}, ""),
        ({"val_check_interval": 0.5, "save_interval": 100}, ""),
        (
            {"val_check_interval": 0.33},
            r"^trainer\.sft\.save_interval=50 .* 33 steps.*val_check_interval=0\.33 .* 100 .*save_interval=33",
        ),
        ({"val_check_interval": 0.33, "save_interval": 0}, ""),
        ({"val_check_interval": 0.33, "limit_val_batches": 0}, ""),
        ({"val_check_interval": 1.0, "limit_train_batches": 0.5}, ""),
        ({"val_check_interval": 1.0, "limit_train_batches": 25}, ""),
        ({"val_check_interval": 1.0, "limit_train_batches": -1}, r" multiple of 100"),
        ({"val_check_interval": 1.0, "limit_train_batches": 1.5}, r" multiple of 100"),
        (
            {"val_check_interval": 0.001},
            r"^trainer\.sft\.val_check_interval=0\.001 .* 100 steps",
        ),
        ({"limit_train_batches": 0}, r"^trainer\.sft\.limit_train_batches=0 .* 100 steps"),
        ({"limit_train_batches": 0.001}, r"^trainer\.sft\.limit_train_batches=0\.001 "),
    ],
)
def test_fractions_of_an_epoch(changes: dict[str, Any], message: str) -> None:
    cfg = config("sft", **changes)
    if not message:
        schedule.planned_steps(cfg, "sft", 401, 4)
        return
    with pytest.raises(UsageError, match=message):
        schedule.planned_steps(cfg, "sft", 401, 4)


def test_unknown_numbers_of_samples_are_accepted() -> None:
    schedule.planned_steps(config("sft", val_check_interval=0.001), "sft", None, 4)


@pytest.fixture(scope="module")
def upstream() -> Any:
    """The functions of upstream's trainer_utils, without the ten seconds of importing NeMo."""
    package = importlib.util.find_spec("nemo_aligner")
    if package is None or package.origin is None:
        pytest.skip("NeMo-Aligner is not installed")
    source = (Path(package.origin).parent / "utils" / "trainer_utils.py").read_text(encoding="utf-8")
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    scope: dict[str, Any] = {}
    module = ast.Module(functions, [])
    exec(compile(module, "trainer_utils.py", "exec", flags=annotations.compiler_flag), scope)
    return SimpleNamespace(**scope)


@pytest.mark.parametrize("limit", [None, 1.0, 1.5, 0.5, 0.333, 0, 7, 1000, -1, -0.5])
def test_steps_are_counted_as_upstream_counts_them(limit: int | float | None, upstream: Any) -> None:
    sampler = SimpleNamespace(drop_last=True, total_samples=401, global_batch_size=4)
    assert schedule._limited(100, limit) == upstream.compute_num_steps_per_epoch(sampler, limit)


@pytest.mark.parametrize("save", [0, 1, 33, 50, 100])
@pytest.mark.parametrize("validate", [0, 1, 25, 30, 100, 0.25, 0.33, 1.0])
@pytest.mark.parametrize("limit", [0, 40, 1.0, 0.01])
def test_a_run_is_refused_if_upstream_would_fail_after_a_step(
    save: int, validate: int | float, limit: int | float, upstream: Any
) -> None:
    steps = int(validate * 100) if isinstance(validate, float) else validate
    try:
        upstream.check_progress(1, 100, steps, save, upstream.compute_limit_batches(10, limit))
        stops = False
    except AssertionError:
        stops = True
    cfg = config("rm", save_interval=save, val_check_interval=validate, limit_val_batches=limit)
    try:
        schedule.check(cfg, "rm")
        schedule.planned_steps(cfg, "rm", 400, 4)
        refused = False
    except UsageError:
        refused = True
    assert refused is stops
