# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The training steps while their trainers work: their progress, and what PPO resumes from."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("omegaconf", reason="the training extra is not installed")

from nemo_aligner_cai.pipeline.steps import training
from nemo_aligner_cai.pipeline.steps.trainers import Trainer
from nemo_aligner_cai.training.metrics.files import METRICS_FILE, write_steps
from tests.unit.ppo_folder import Ppo, configure


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


class FakePpo:
    """The processes of a PPO step. The first attempt is stopped after the critic has saved step 20, the actor 10."""

    def __init__(self, folder: Path) -> None:
        self.ppo = Ppo(folder)
        self.attempts = 0

    def wait(self, _: object, *, servers: object, watch: Callable[[], None]) -> None:
        self.attempts += 1
        if self.attempts == 1:
            configure(self.ppo.actor, self.ppo.critic)
            self.ppo.save(10, 20)
            watch()
            self.ppo.save(None, 40)
            watch()
            raise KeyboardInterrupt
        self.ppo.assert_complete(10)
        self.ppo.save(20, 40)
        (self.ppo.actor / "checkpoints" / "cai_ppo_actor.nemo").write_text("trained")
        watch()

    @contextmanager
    def server(self, *_: object, **__: object) -> Iterator[None]:
        yield None


def test_ppo_stopped_while_it_saves_resumes_and_leaves_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakePpo(tmp_path)
    monkeypatch.setattr(training.jobs, "start", lambda *_, **__: None)
    monkeypatch.setattr(training.jobs, "finish", fake.wait)
    monkeypatch.setattr(training.jobs, "server", fake.server)
    monkeypatch.setattr(training, "RewardServer", lambda *_: None)
    monkeypatch.setattr(training, "scored_pairs", lambda *_: [])
    held_out = tmp_path / "held_out.jsonl"
    held_out.touch()

    def train() -> None:
        critic, actor = (Trainer(name, f"cai_{name}", ()) for name in ("critic_server", "ppo_actor"))
        training.train_ppo(tmp_path, critic, actor, tmp_path, held_out=held_out, address=("localhost", 1))

    with pytest.raises(KeyboardInterrupt):
        train()
    train()
    assert fake.attempts == 2 and (tmp_path / "model.nemo").read_text() == "trained"
    assert not list(tmp_path.rglob("*-last")) and not (tmp_path / "checkpoint_pairs").exists()
