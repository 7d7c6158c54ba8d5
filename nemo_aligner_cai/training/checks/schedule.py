# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""When a run validates, saves and ends, checked before it starts: upstream asks after each step, or after loading."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_MAX_TIME = "exp_manager.max_time_per_run"


def check(cfg: DictConfig, section: str) -> None:
    """Check what is known before the data is.

    Args:
        cfg: a stage's configuration.
        section: the part of `trainer` that is upstream's loop: "sft", "rm", "dpo" or "ppo".

    Raises:
        UsageError: no epoch, no step, a batch limit below 0, an interval that is none, a checkpoint that would be due
            between two validations (`check_progress` of upstream's trainer_utils), or a time limit of another form.
    """
    at = f"trainer.{section}."
    epochs(cfg, f"{at}max_epochs")
    steps = select(cfg, f"{at}max_steps")
    # Upstream takes -1 where the key is absent, and compares what is there.
    if steps == 0 or not isinstance(steps, int | None) or (steps is None and "max_steps" in cfg.trainer[section]):
        raise UsageError(f"{at}max_steps={steps}: a whole number is needed, or -1 for whole epochs; 0 trains nothing")
    for name in ("limit_train_batches", "limit_val_batches"):
        # Below 0 upstream trains on all batches, but validates on none, of which it then wants the mean.
        least = 0 if name == "limit_val_batches" else -math.inf
        limit = select(cfg, at + name)
        if limit is not None and not (isinstance(limit, int | float) and limit >= least):
            raise UsageError(f"{at}{name}={limit}: a number of batches is needed, or a fraction of them up to 1.0")
    save = select(cfg, f"{at}save_interval")
    validate = select(cfg, f"{at}val_check_interval")
    if not isinstance(save, int) or save < 0:
        raise UsageError(f"{at}save_interval={save}: a whole number of steps is needed, or 0 to save nothing")
    if not isinstance(validate, int | float) or (section == "ppo" and not isinstance(validate, int)):
        fraction = "" if section == "ppo" else ", or a fraction of an epoch"
        raise UsageError(f"{at}val_check_interval={validate}: a whole number of steps is needed{fraction}")
    if isinstance(validate, int) and _surely_validates(cfg, section) and save % validate:
        raise UsageError(f"{at}save_interval={save} must be a multiple of val_check_interval={validate}")
    if (limit := select(cfg, _MAX_TIME)) is not None and not re.fullmatch(r"\s*\d+(:\d+){3}\s*", str(limit)):
        raise UsageError(f"{_MAX_TIME}={limit} (trainer.max_time): give days:hours:minutes:seconds, 00:03:45:00")


def check_epoch(cfg: DictConfig, section: str, samples: int | None, batch: int | None) -> None:
    """Check what depends on the steps of an epoch, as upstream's SupervisedTrainer and DPOTrainer count them.

    Args:
        cfg: a stage's configuration, which has passed `check`.
        section: "sft", "rm" or "dpo".
        samples: of the training data; None where nobody has counted them.
        batch: how many samples a step takes.

    Raises:
        UsageError: an epoch without a step, validations that would never be due, or a checkpoint between two.
    """
    if samples is None or batch is None:
        return
    at = f"trainer.{section}."
    limit = select(cfg, f"{at}limit_train_batches")
    steps = _limited(samples // batch, limit)
    if not steps:
        raise UsageError(
            f"{at}limit_train_batches={limit}: not one step of the {samples // batch} of an epoch is left; give more"
        )
    validate, save = select(cfg, f"{at}val_check_interval"), select(cfg, f"{at}save_interval")
    if not isinstance(validate, float) or not _surely_validates(cfg, section):
        return
    interval = int(validate * steps)
    if not interval:
        raise UsageError(
            f"{at}val_check_interval={validate}: of the {steps} steps of an epoch that is no step; give more"
        )
    if save % interval:
        raise UsageError(
            f"{at}save_interval={save} must be a multiple of {interval}, the steps that val_check_interval={validate} "
            f"is of the {steps} of an epoch; give save_interval={interval}, or val_check_interval in steps"
        )


def planned_steps(cfg: DictConfig, section: str, samples: int | None, batch: int | None) -> int | None:
    """The steps of a whole run, as upstream's trainers count them; None if the samples are not counted.

    Args:
        cfg: a stage's configuration, which has passed `check`.
        section: "sft", "rm", "dpo" or "ppo".
        samples: of the training data.
        batch: how many samples a step takes.
    """
    if samples is None or batch is None:
        return None
    at = f"trainer.{section}."
    steps = _limited(samples // batch, select(cfg, f"{at}limit_train_batches")) * select(cfg, f"{at}max_epochs")
    most = select(cfg, f"{at}max_steps")
    return steps if most is None or most < 0 else min(steps, most)


def validates(cfg: DictConfig, section: str) -> bool:
    """Whether a run ever looks at its validation data, as upstream's `check_progress` says."""
    at = f"trainer.{section}."
    interval = select(cfg, f"{at}val_check_interval")
    return select(cfg, f"{at}limit_val_batches") != 0 and isinstance(interval, int | float) and interval > 0


def _surely_validates(cfg: DictConfig, section: str) -> bool:
    # A fraction of the validation batches may be none of them, and then no validation is due.
    limit = select(cfg, f"trainer.{section}.limit_val_batches")
    return validates(cfg, section) and not (isinstance(limit, float) and limit < 1.0)


def epochs(cfg: DictConfig, key: str) -> None:
    """Raise UsageError for less than one epoch: upstream's loop would train nothing and succeed."""
    value = select(cfg, key)
    if value is None or (isinstance(value, int) and value < 1):
        raise UsageError(f"{key}={value}: at least 1 is needed; limit the run with max_steps instead")
    model_file.whole(value, key)


def _limited(batches: int, limit: Any) -> int:
    """As upstream's `compute_limit_batches`: a whole number counts batches, and 1 is one of them; 1.0 is all."""
    if limit is None or limit < 0 or (isinstance(limit, float) and limit > 1.0):
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)
