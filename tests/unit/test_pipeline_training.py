# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoints from which a killed PPO step resumes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("omegaconf", reason="the training extra is not installed")

from omegaconf import OmegaConf

from nemo_aligner_cai.pipeline.steps import training
from nemo_aligner_cai.pipeline.steps.trainers import Trainer
from nemo_aligner_cai.training.metrics.files import METRICS_FILE, write_steps


def saved(folder: Path, *checkpoints: str, rollouts: int = 0, batch: int = 0, warmup: int = 0) -> Path:
    """A log directory with a configuration and empty checkpoints."""
    (folder / "checkpoints").mkdir(parents=True)
    for name in checkpoints:
        (folder / "checkpoints" / name).mkdir()
    sizes = {"num_rollout_samples": rollouts}
    model = {"ppo": sizes, "batch": batch, "global_batch_size": "${model.batch}"}
    tree = {"model": model, "trainer": {"ppo": {"critic_warmup_steps": warmup}}}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(tree)))
    return folder


ACTOR = "cai_ppo_actor-step={}-consumed_samples=640-epoch=1-last"
CRITIC = "cai_ppo_critic-step={}-last"


@pytest.mark.parametrize(
    ("actor_step", "critic_step", "warmup", "kept"),
    [
        (10, 20, 0, True),  # two batches of the critic to a step of the actor
        (10, 24, 2, True),
        (10, 40, 0, False),  # killed after the critic's save
        (20, 20, 0, False),  # killed after the actor's save
        (10, None, 0, False),
        (None, 20, 0, False),
        (None, None, 0, False),
    ],
)
def test_actor_and_critic_resume_from_the_same_step_or_start_over(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    actor_step: int | None,
    critic_step: int | None,
    warmup: int,
    kept: bool,
) -> None:
    caplog.set_level("WARNING", logger=training.__name__)
    actors = [ACTOR.format(actor_step)] if actor_step is not None else []
    critics = [CRITIC.format(critic_step)] if critic_step is not None else []
    actor = saved(tmp_path / "train", *actors, rollouts=128, warmup=warmup)
    critic = saved(tmp_path / "critic", *critics, batch=64)
    training.remove_unequal_checkpoints(actor, critic)
    assert (actor.exists(), critic.exists()) == (kept, kept)
    assert ("PPO starts over" in caplog.text) != kept


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    actor = saved(tmp_path / "train", ACTOR.format(5), ACTOR.format(10), rollouts=64)
    critic = saved(tmp_path / "critic", CRITIC.format(5), batch=64)
    (actor / "checkpoints" / f"{ACTOR.format(10)}-unfinished").touch()
    training.remove_unequal_checkpoints(actor, critic)
    assert (actor / "checkpoints" / ACTOR.format(5)).is_dir()
    assert (critic / "checkpoints" / CRITIC.format(5)).is_dir()


def test_two_last_checkpoints_are_none(tmp_path: Path) -> None:
    """NeMo stops at them: a run was killed before the earlier one was removed."""
    actor = saved(tmp_path / "train", ACTOR.format(5), ACTOR.format(10), rollouts=64)
    critic = saved(tmp_path / "critic", CRITIC.format(10), batch=64)
    training.remove_unequal_checkpoints(actor, critic)
    assert not actor.exists()
    assert not critic.exists()


def test_nothing_is_there_at_first(tmp_path: Path) -> None:
    training.remove_unequal_checkpoints(tmp_path / "train", tmp_path / "critic")
    assert not list(tmp_path.iterdir())


def test_the_progress_of_a_trainer_is_shown_while_it_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    log_dir = tmp_path / "train"

    class FakeTrainer:
        """Logs a step each time that it is waited for."""

        def wait(self, _: object, *, servers: object, watch: Callable[[], None]) -> None:
            write_steps(log_dir, 3)
            for step in range(3):
                with (log_dir / METRICS_FILE).open("a") as file:
                    file.write(json.dumps({"step": step, "train/loss": 2.0 - step}) + "\n")
                watch()

    monkeypatch.setattr(training.jobs, "start", lambda *_, **__: None)
    monkeypatch.setattr(training.jobs, "finish", FakeTrainer().wait)
    training.run(Trainer("reward_model", "cai_reward_model", ()), tmp_path)
    assert caplog.messages == ["reward model: step 1 of 3: train/loss 2", "reward model: step 3 of 3: train/loss 0"]
