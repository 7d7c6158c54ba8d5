# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A step that trains: what it goes on from when it was interrupted, and where its model ends up."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.pipeline import measure
from nemo_aligner_cai.training.launch import jobs, outcome

MODEL = "model.nemo"
_log = logging.getLogger(__name__)


def run(module: str, overrides: Sequence[str], folder: Path, *, servers: Sequence[jobs.Job] = ()) -> None:
    """Run a stage's module to its end, with its log in the step's folder.

    Raises:
        CaiError: it failed, or a server that it needs ended.
    """
    jobs.finish(jobs.start(f"nemo_aligner_cai.training.{module}", overrides, folder / "train.log"), servers=servers)


def trained(folder: Path, train: Callable[[], None]) -> Mapping[str, Any]:
    """Train, move the .nemo to the step's folder and remove the checkpoints, which have served their purpose.

    An interrupted attempt goes on from its checkpoint, if there is one.  One that was interrupted after its last
    step has nothing more to train, and upstream then saves nothing: it starts over.
    """
    log_dir = folder / "train"
    for attempt in ("resumed", "anew"):
        for half in (log_dir / "checkpoints").glob("*.nemo"):
            half.unlink()
        if attempt == "anew":
            shutil.rmtree(log_dir)
        train()
        found = list((log_dir / "checkpoints").glob("*.nemo"))
        if found:
            break
    else:
        raise CaiError(f"{log_dir}: no .nemo file is there after training; see {folder / 'train.log'}")
    found[0].replace(folder / MODEL)
    for part in ("train", "critic"):
        shutil.rmtree(folder / part / "checkpoints", ignore_errors=True)
    return {"metrics": measure.last_metrics(log_dir)}


def together(actor: Path, critic: Path) -> None:
    """Remove what PPO's actor and critic have saved, unless they saved it in the same step.

    Each saves for itself: a run that is killed meanwhile leaves one of them ahead of the other.

    Args:
        actor: its log directory.
        critic: its log directory.
    """
    if _same_step(actor, critic):
        return
    for folder in (actor, critic):
        if folder.exists():
            _log.warning("%s: actor and critic have no checkpoint of one step; PPO starts over", folder)
            # What could not be removed would be gone on from.
            shutil.rmtree(folder)


def _same_step(actor: Path, critic: Path) -> bool:
    from omegaconf import OmegaConf

    step, updates = outcome.last_step(actor), outcome.last_step(critic)
    configs = [folder / "config.yaml" for folder in (actor, critic)]
    # NeMo moves them away for a moment when a run goes on.
    if step is None or updates is None or not all(path.is_file() for path in configs):
        return False
    ours, theirs = (OmegaConf.load(path) for path in configs)
    # The critic counts its own batches, and the rollouts it warms up on.
    batches = math.ceil(ours.model.ppo.num_rollout_samples / theirs.model.global_batch_size)
    return bool(updates == (step + ours.trainer.ppo.get("critic_warmup_steps", 0)) * batches)
