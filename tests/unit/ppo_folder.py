# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The folder of a PPO step, with an actor and a critic that save checkpoints as NeMo does."""

import shutil
from pathlib import Path

from omegaconf import OmegaConf

from nemo_aligner_cai.pipeline.steps.checkpoint_pairs import CheckpointPairs
from nemo_aligner_cai.training.launch.log_folder import last_step, unfinished_mark

ACTOR = "cai_ppo_actor-step={}-consumed_samples=640-epoch=1-last"
CRITIC = "cai_ppo_critic-step={}-last"
FILES = ("metadata.json", "weights/__0_0.distcp")


class Ppo:
    """A step's folder. Each file of a checkpoint contains the checkpoint's name and its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.actor, self.critic = folder, folder / "train", folder / "critic"
        self.pairs = self.new_start()

    def new_start(self) -> CheckpointPairs:
        return CheckpointPairs(self.folder / "pairs", actor=self.actor, critic=self.critic)

    def save(self, step: int | None, updates: int | None) -> None:
        if step is not None:
            save(self.actor, ACTOR.format(step))
        if updates is not None:
            save(self.critic, CRITIC.format(updates))

    def kept(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "pairs").glob("*"))

    def assert_complete(self, step: int) -> None:
        """The actor resumes from a step, the critic from the same one, each from all of its files."""
        assert (last_step(self.actor), last_step(self.critic)) == (step, 2 * step)
        for log_dir, name in ((self.actor, ACTOR.format(step)), (self.critic, CRITIC.format(2 * step))):
            for file in FILES:
                assert (log_dir / "checkpoints" / name / file).read_text() == f"{name} {file}"


def configure(actor: Path, critic: Path, *, rollouts: int = 128, batch: int = 64, warmup: int = 0) -> None:
    """Write the settings of the log directories; by default, the critic makes two updates in a step of the actor."""
    for log_dir in (actor, critic):
        model = {"ppo": {"num_rollout_samples": rollouts}, "batch": batch, "global_batch_size": "${model.batch}"}
        tree = {"model": model, "trainer": {"ppo": {"critic_warmup_steps": warmup}}}
        log_dir.mkdir(parents=True)
        (log_dir / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))


def save(log_dir: Path, name: str) -> None:
    """Write a checkpoint, marked until it is finished; then remove the earlier ones, marked until they are gone."""
    write(log_dir, name)
    unfinished_mark(log_dir, name).unlink()
    for earlier in (log_dir / "checkpoints").glob("*-last"):
        if earlier.name != name:
            mark = unfinished_mark(log_dir, earlier.name)
            mark.touch()
            shutil.rmtree(earlier)
            mark.unlink()


def write(log_dir: Path, name: str) -> None:
    """Write a checkpoint that stays marked."""
    for file in FILES:
        path = log_dir / "checkpoints" / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished_mark(log_dir, name).touch()
        path.write_text(f"{name} {file}")
