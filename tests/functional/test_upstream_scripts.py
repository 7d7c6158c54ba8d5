# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""NeMo-Aligner's own scripts, found in $NEMO_ALIGNER_HOME and unmodified, have the losses of our entry points.

Both write to TensorBoard, which is where their metrics are read from: upstream's scripts write no metrics.jsonl.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("tensorboard", reason="the training extra is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_aligner_cai.training.launch import jobs
from tests.functional.conftest import ENV, PACKAGE, TIMEOUT_S, Lab, Run

HOME = os.environ.get("NEMO_ALIGNER_HOME", "/opt/NeMo-Aligner")
SCRIPTS = Path(HOME) / "examples" / "nlp" / "gpt"
STEPS = 3
TOLERANCE = 1e-6

pytestmark = pytest.mark.skipif(
    not (SCRIPTS / "train_gpt_sft.py").is_file(),
    reason="no NeMo-Aligner v0.7.0 checkout: name one by NEMO_ALIGNER_HOME",
)


@pytest.fixture(autouse=True)
def _outside_the_checkout(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python looks for modules in the current folder first, and the checkout's package has no configs in it."""
    monkeypatch.chdir(lab.folder)


def start(lab: Lab, module: str, name: str, overrides: list[str], script: tuple[str, str] | None) -> jobs.Job:
    """Start our stage `module`, or upstream's script with its configuration of ours where one is given."""
    command = [
        *overrides,
        f"exp_manager.explicit_log_dir={lab.folder / name}",
        "exp_manager.create_tensorboard_logger=true",
    ]
    log = lab.folder / f"{name}.log"
    if script is None:
        return jobs.start(f"{PACKAGE}.{module}", command, log, ENV)
    file, config = script
    arguments = [str(SCRIPTS / file), f"--config-name={config}", "hardware=cpu", *command]
    return jobs.start(f"{PACKAGE}.upstream_script", arguments, log, ENV, fork=False)


def series(log_dir: Path) -> dict[str, list[float]]:
    """Each loss, reward and gradient norm that a run wrote to TensorBoard, in order."""
    found: dict[str, list[float]] = {}
    for events in sorted(log_dir.rglob("events.*")):
        reader = EventAccumulator(str(events))
        reader.Reload()
        for key in reader.Tags()["scalars"]:
            if "loss" in key or "grad_norm" in key or "rewards" in key:
                found.setdefault(key, []).extend(event.value for event in reader.Scalars(key))
    return found


def agree(ours: Path, theirs: Path, *expected: str) -> None:
    """Check that two runs wrote the same, and wrote `expected` at each step."""
    ours_series, theirs_series = series(ours), series(theirs)
    assert ours_series.keys() == theirs_series.keys()
    for key in expected:
        assert len(ours_series[key]) == STEPS, key
    for key, values in ours_series.items():
        assert theirs_series[key] == pytest.approx(values, abs=TOLERANCE), key


SFT = ("train_gpt_sft.py", "cai_sft")
REWARD_MODEL = ("train_reward_model.py", "cai_reward_model")
CRITIC = ("serve_ppo_critic.py", "cai_ppo_critic")
ACTOR = ("train_gpt_ppo_actor.py", "cai_ppo_actor")


def test_sft(lab: Lab, base: Path) -> None:
    overrides = [*lab.sft_overrides(base, STEPS), f"trainer.sft.val_check_interval={STEPS}"]
    jobs.finish(start(lab, "sft", "sft_ours", overrides, None), TIMEOUT_S)
    jobs.finish(start(lab, "sft", "sft_theirs", overrides, SFT), TIMEOUT_S)
    agree(lab.folder / "sft_ours", lab.folder / "sft_theirs", "train/loss", "train/grad_norm")


def test_the_reward_model(lab: Lab, sft: Run) -> None:
    overrides = [
        f"pretrained_checkpoint.restore_from_path={sft.nemo('cai_sft')}",
        lab.splits("rm"),
        "model.micro_batch_size=16",
        "model.global_batch_size=16",
        "model.optim.lr=1e-3",
        f"trainer.rm.max_steps={STEPS}",
        f"trainer.rm.val_check_interval={STEPS}",
        f"trainer.rm.save_interval={STEPS}",
    ]
    jobs.finish(start(lab, "reward_model", "rm_ours", overrides, None), TIMEOUT_S)
    jobs.finish(start(lab, "reward_model", "rm_theirs", overrides, REWARD_MODEL), TIMEOUT_S)
    agree(lab.folder / "rm_ours", lab.folder / "rm_theirs", "train/loss", "train/grad_norm")


@contextmanager
def critic(lab: Lab, name: str, model: Path, port: int, script: tuple[str, str] | None) -> Iterator[None]:
    overrides = [
        f"pretrained_checkpoint.restore_from_path={model}",
        f"trainer.ppo.port={port}",
        "trainer.ppo.inference_micro_batch_size=16",
        "model.micro_batch_size=16",
        "model.global_batch_size=16",
        "model.optim.lr=1e-3",
        "model.optim.sched.warmup_steps=1",
    ]
    job = start(lab, "critic_server", name, overrides, script)
    try:
        jobs.wait_ready(job, jobs.critic_urls("127.0.0.1", port), TIMEOUT_S)
        yield
    finally:
        jobs.stop(job)


def test_ppo_against_its_critic(lab: Lab, sft: Run, reward_model: Run, free_port: int) -> None:
    overrides = [
        f"pretrained_checkpoint.restore_from_path={sft.nemo('cai_sft')}",
        lab.splits("ppo"),
        "model.micro_batch_size=16",
        "model.global_batch_size=16",
        "model.ppo.num_rollout_samples=16",
        "model.ppo.num_val_samples=16",
        "model.ppo.rollout_micro_batch_size=16",
        "model.ppo.val_rollout_micro_batch_size=16",
        "model.ppo.forward_micro_batch_size=16",
        "model.ppo.length_params.max_length=20",
        "model.optim.lr=1e-3",
        "model.optim.sched.warmup_steps=1",
        f"trainer.ppo.max_steps={STEPS}",
        f"trainer.ppo.val_check_interval={STEPS}",
        "remote_critic_rm.critic.ip=127.0.0.1",
        f"remote_critic_rm.critic.port={free_port}",
    ]
    for whose, served, trained in (("ours", None, None), ("theirs", CRITIC, ACTOR)):
        with critic(lab, f"critic_{whose}", reward_model.nemo("cai_reward_model"), free_port, served):
            jobs.finish(start(lab, "ppo_actor", f"actor_{whose}", overrides, trained), TIMEOUT_S)
    agree(lab.folder / "actor_ours", lab.folder / "actor_theirs", "train_rollouts/rewards", "train_optim/grad_norm")
    agree(lab.folder / "critic_ours", lab.folder / "critic_theirs", "train/loss", "train/grad_norm")
