# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoints from which an interrupted PPO step resumes: the actor's and the critic's, of the same step.

Each of the two saves by itself and then removes its earlier checkpoint. A stop between the two saves leaves them at
different steps, so that neither could be used. Therefore the checkpoints of the last step that both have saved are
kept as hard links, until both have saved the next one:

<folder>/20/train/checkpoints/cai_ppo_actor-step=20-...-last
<folder>/20/critic/checkpoints/cai_ppo_critic-step=40-last

The links need no disk space while the checkpoints themselves exist. NeMo never changes a finished checkpoint: its name
contains the step, and Megatron refuses to write into a folder that is not empty.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from pathlib import Path

from nemo_aligner_cai.training.launch import log_folder

_UNFINISHED = "unfinished"
_log = logging.getLogger(__name__)


class CheckpointPairs:
    """Keeps the last checkpoints of the same step while actor and critic work, and restores them at the next start."""

    def __init__(self, folder: Path, *, actor: Path, critic: Path) -> None:
        """Create nothing yet.

        Args:
            folder: for the pairs; on the file system of the log directories, as hard links must be.
            actor: the actor's log directory.
            critic: the critic's log directory.
        """
        self._folder = folder
        self._log_dirs = (actor, critic)
        self._seen: tuple[int | None, int | None] | None = None

    def resume(self) -> None:
        """Make actor and critic resume from the same step; to be called before they start.

        Checkpoints of different steps are replaced by the kept pair. Without a pair, both log directories are removed.
        """
        if not self._are_equal(self._last_steps()):
            # An interruption can leave the earlier pair, or a part of it.
            pair = max(self._pairs(), key=lambda path: int(path.name), default=None)
            if pair is None:
                self._start_over()
            else:
                self._restore(pair)
        self.keep()

    def keep(self) -> None:
        """Keep the last checkpoints if they are a new pair; to be called several times a second.

        A pair exists from the end of a save to the end of the next one, which is at least one step of PPO. If none of
        the calls sees it, the earlier pair stays. An error is logged, since training does not depend on the pair.
        """
        try:
            steps = self._last_steps()
            if steps == self._seen:
                return
            self._seen = steps
            if self._are_equal(steps):
                self._link(steps)
        except OSError as error:
            _log.warning(
                "%s: cannot keep the last checkpoints (%s); PPO may start over if it is stopped while it saves",
                self._folder,
                error,
            )

    def _pairs(self) -> list[Path]:
        return [path for path in self._folder.glob("*") if path.name.isdigit()]

    def _last_steps(self) -> tuple[int | None, int | None]:
        actor, critic = self._log_dirs
        return log_folder.last_step(actor), log_folder.last_step(critic)

    def _are_equal(self, steps: tuple[int | None, int | None]) -> bool:
        from omegaconf import OmegaConf

        step, updates = steps
        configs = [folder / "config.yaml" for folder in self._log_dirs]
        # NeMo moves them for a moment when a run resumes.
        if step is None or updates is None or not all(path.is_file() for path in configs):
            return False
        actor, critic = (OmegaConf.load(path) for path in configs)
        # The critic counts its own batches, including those of the warm-up rollouts.
        batches = math.ceil(actor.model.ppo.num_rollout_samples / critic.model.global_batch_size)
        return bool(updates == (step + actor.trainer.ppo.get("critic_warmup_steps", 0)) * batches)

    def _link(self, steps: tuple[int | None, int | None]) -> None:
        """Make the pair of these steps unless it exists, and remove all others."""
        pair, unfinished = self._folder / str(steps[0]), self._folder / _UNFINISHED
        if not pair.exists():
            try:
                _remove(unfinished)
                for log_dir in self._log_dirs:
                    _link_last(log_dir, unfinished / log_dir.name)
                # NeMo marks a checkpoint before it removes it. Without a mark, all of its files were still there.
                if self._last_steps() != steps:
                    return
                unfinished.rename(pair)
            finally:
                # Links to checkpoints that NeMo removes would keep their disk space.
                shutil.rmtree(unfinished, ignore_errors=True)
        for path in self._folder.iterdir():
            if path != pair:
                _remove(path)

    def _restore(self, pair: Path) -> None:
        _log.warning(
            "%s: actor and critic have no checkpoint of the same step; PPO resumes from step %s, which both had saved",
            self._folder.parent,
            pair.name,
        )
        for log_dir in self._log_dirs:
            _replace_last(log_dir, pair / log_dir.name)

    def _start_over(self) -> None:
        for log_dir in self._log_dirs:
            if log_dir.exists():
                _log.warning("%s: actor and critic have no checkpoint of the same step; PPO starts over", log_dir)
                # An error here must stop the run: it would resume from what is left.
                shutil.rmtree(log_dir)


def _replace_last(log_dir: Path, saved: Path) -> None:
    """Replace the last checkpoints of a log directory by links to a saved one.

    Meanwhile they have NeMo's mark of an unfinished checkpoint, so that no start can use a part of one.
    """
    present = log_folder.last_checkpoints(log_dir)
    marks = [log_folder.unfinished_mark(log_dir, name) for name in present | log_folder.last_checkpoints(saved)]
    for mark in marks:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    for paths in present.values():
        for path in paths:
            _remove(path)
    _link_last(saved, log_dir)
    for mark in marks:
        mark.unlink()


def _link_last(source: Path, target: Path) -> None:
    """Link the files of the last finished checkpoints of a log directory into another one."""
    for name, paths in log_folder.last_checkpoints(source).items():
        if log_folder.unfinished_mark(source, name).exists():
            continue
        for path in paths:
            for file in path.rglob("*") if path.is_dir() else [path]:
                if file.is_file():
                    link = target / file.relative_to(source)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    os.link(file, link)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
