# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""When a run validates, saves and ends, checked before it starts; upstream checks after loading or after each step."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig

_MAX_TIME = "exp_manager.max_time_per_run"


def check(cfg: DictConfig, section: str) -> None:
    """Check the settings that do not depend on the size of the data.

    Args:
        cfg: the stage's configuration.
        section: the section of `trainer` with the upstream loop's settings: "sft", "rm", "dpo" or "ppo".

    Raises:
        UsageError: the run would have no epoch or step; a limit or interval is invalid; a checkpoint would be due
            between two validations (`check_progress` of upstream's trainer_utils).
    """
    at = f"trainer.{section}."
    epochs = select(cfg, f"{at}max_epochs")
    # With less than one epoch, upstream's loop trains nothing and succeeds.
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise UsageError(f"{at}max_epochs={epochs}: must be at least 1; limit the run with max_steps instead")
    steps = select(cfg, f"{at}max_steps")
    # Upstream defaults to -1 only if the key is absent.
    if steps == 0 or not isinstance(steps, int | None) or (steps is None and "max_steps" in cfg.trainer[section]):
        raise UsageError(f"{at}max_steps={steps}: must be a positive integer, or -1 for whole epochs")
    # Below 0, upstream trains on all batches, but validates on none and then takes the mean over them.
    for name, least in (("limit_train_batches", -math.inf), ("limit_val_batches", 0)):
        limit = select(cfg, at + name)
        if limit is not None and not (isinstance(limit, int | float) and limit >= least):
            raise UsageError(f"{at}{name}={limit}: must be a number of batches, or a fraction up to 1.0")
    save, validate = select(cfg, f"{at}save_interval"), select(cfg, f"{at}val_check_interval")
    if not isinstance(save, int) or save < 0:
        raise UsageError(f"{at}save_interval={save}: must be a number of steps, or 0 to save nothing")
    if not isinstance(validate, int | float) or (section == "ppo" and not isinstance(validate, int)):
        fraction = "" if section == "ppo" else ", or a fraction of an epoch"
        raise UsageError(f"{at}val_check_interval={validate}: must be a number of steps{fraction}")
    if isinstance(validate, int) and _surely_validates(cfg, section) and save % validate:
        raise UsageError(f"{at}save_interval={save} must be a multiple of val_check_interval={validate}")
    if (limit := select(cfg, _MAX_TIME)) is not None and not re.fullmatch(r"\s*\d+(:\d+){3}\s*", str(limit)):
        raise UsageError(f"{_MAX_TIME}={limit} (trainer.max_time): give days:hours:minutes:seconds, 00:03:45:00")


def planned_steps(cfg: DictConfig, section: str, samples: int | None, batch_size: int | None) -> int | None:
    """The steps of the whole run, counted as upstream's trainers do; None if the number of samples is unknown.

    Args:
        cfg: the stage's configuration, which has passed `check`.
        section: "sft", "rm", "dpo" or "ppo".
        samples: the number of training samples; None if unknown.
        batch_size: samples per step.

    Raises:
        UsageError: an epoch has no step, no validation is ever due, or a checkpoint is due between two validations.
    """
    if samples is None or batch_size is None:
        return None
    at = f"trainer.{section}."
    limit, most = select(cfg, f"{at}limit_train_batches"), select(cfg, f"{at}max_steps")
    epoch = _limited(samples // batch_size, limit)
    if not epoch:
        raise UsageError(f"{at}limit_train_batches={limit} leaves none of the {samples // batch_size} steps per epoch")
    validate, save = select(cfg, f"{at}val_check_interval"), select(cfg, f"{at}save_interval")
    if isinstance(validate, float) and _surely_validates(cfg, section):
        interval = int(validate * epoch)
        if not interval:
            raise UsageError(f"{at}val_check_interval={validate} is less than one of the {epoch} steps per epoch")
        if save % interval:
            raise UsageError(
                f"{at}save_interval={save} must be a multiple of {interval} steps, the val_check_interval={validate} "
                f"of {epoch} steps per epoch; give save_interval={interval}, or val_check_interval in steps"
            )
    steps = epoch * select(cfg, f"{at}max_epochs")
    return steps if most is None or most < 0 else min(steps, most)


def validates(cfg: DictConfig, section: str) -> bool:
    """Return True if the run uses its validation data (upstream's `check_progress`)."""
    at = f"trainer.{section}."
    interval = select(cfg, f"{at}val_check_interval")
    return select(cfg, f"{at}limit_val_batches") != 0 and isinstance(interval, int | float) and interval > 0


def _surely_validates(cfg: DictConfig, section: str) -> bool:
    # A fraction of the validation batches may round to 0, and then no validation is due.
    limit = select(cfg, f"trainer.{section}.limit_val_batches")
    return validates(cfg, section) and not (isinstance(limit, float) and limit < 1.0)


def _limited(batches: int, limit: Any) -> int:
    """Upstream's `compute_limit_batches`: an int limits the number of batches, a float up to 1.0 is a fraction."""
    if limit is None or limit < 0 or (isinstance(limit, float) and limit > 1.0):
        return batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)
