# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Two gloo processes, under each way of sharing the work, have the losses of one.

Each step sees one and the same set of samples, the whole file: data-parallel processes draw from a part of the file
each. With a micro batch of one sample no loss depends on which samples share a micro batch.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training.launch import jobs
from nemo_aligner_cai.training.metrics.files import read_metrics
from tests.functional.conftest import ENV, PACKAGE, TIMEOUT_S, Lab, Run
from tests.functional.proxy import Refused, proxy

BATCH = 16  # samples; the whole file
STEPS = 4
TOLERANCE = 1e-3
LAYOUTS = {
    "tensor": ["model.tensor_model_parallel_size=2"],
    "pipeline": ["model.pipeline_model_parallel_size=2"],
    "data": [],
}
# metric -> how many values of it a run has
CRITIC = {"train/loss": STEPS, "train/grad_norm": STEPS}
SUPERVISED = CRITIC | {"val/loss": 1}
ROLLOUTS = (
    "rewards",
    "rewards_with_kl",
    "init_policy_kl",
    "values_mean",
    "values_std",
    "advantages_std",
    "returns_mean",
)
# The actor's loss is the mean of normalized advantages, zero before it moves; its gradient is not.
ACTOR = {f"train_rollouts/{name}": STEPS for name in ROLLOUTS} | {
    "train_optim/grad_norm": STEPS,
    "val_rollouts/rewards": 1,
}


def two_ranks(lab: Lab, stage: str, name: str, *overrides: str) -> list[jobs.Job]:
    """Start a stage as two ranks, with the variables that torchrun sets."""
    port = jobs.free_port()
    command = [*overrides, "trainer.devices=2", f"exp_manager.explicit_log_dir={lab.folder / name}"]
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": name}
    ranks: list[jobs.Job] = []
    for rank in ("0", "1"):
        env = ENV | world | {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
        ranks.append(jobs.start(f"{PACKAGE}.{stage}", command, lab.folder / f"{name}.{rank}.log", env))
    return ranks


def two_processes(lab: Lab, stage: str, name: str, *overrides: str) -> Run:
    """Run a stage as two ranks to its end, each by itself; fails with the first one's failure."""
    ranks = two_ranks(lab, stage, name, *overrides)
    failures: list[CaiError] = []
    try:
        for job in ranks:
            try:
                jobs.finish(job, TIMEOUT_S)
            except CaiError as failure:
                failures.append(failure)
    finally:
        stop(ranks)
    if failures:
        raise failures[0]
    log_dir = lab.folder / name
    return Run(log_dir, ranks[0].log, list(read_metrics(log_dir)))


def stop(started: list[jobs.Job]) -> None:
    for job in started:
        jobs.stop(job, grace_s=1.0)


def first_rows(lab: Lab, name: str, rows: int) -> Path:
    """A file with the first rows of one of the world's."""
    part = lab.folder / f"batch_{name}"
    lines = (lab.folder / name).read_text(encoding="utf-8").splitlines(keepends=True)[:rows]
    part.write_text("".join(lines), encoding="utf-8")
    return part


def sft_overrides(lab: Lab, base: Path, steps: int = STEPS) -> list[str]:
    return [
        *lab.sft_overrides(base, steps),
        f"model.data.train_ds.file_path={first_rows(lab, 'sft_train.jsonl', BATCH)}",
        "model.data.train_ds.micro_batch_size=1",
        f"trainer.sft.val_check_interval={steps}",
        # Megatron pads the vocabulary to a multiple of this times the processes: 64 pieces either way.
        "++model.make_vocab_size_divisible_by=32",
    ]


def rm_overrides(lab: Lab, model: Path) -> list[str]:
    train, test = first_rows(lab, "rm_train.jsonl", 2 * BATCH), lab.folder / "rm_test.jsonl"
    return [
        f"pretrained_checkpoint.restore_from_path={model}",
        f"model.data.data_prefix={{train: [{train}], validation: [{test}], test: [{test}]}}",
        # A new head's first weights depend on the rank that holds it.
        "model.regression.load_rm_head_weights=true",
        "model.micro_batch_size=1",
        f"model.global_batch_size={BATCH}",
        "model.optim.lr=1e-3",
        "trainer.rm.max_epochs=100",
        f"trainer.rm.max_steps={STEPS}",
        f"trainer.rm.val_check_interval={STEPS}",
        "trainer.rm.save_interval=100",
        "exp_manager.create_checkpoint_callback=false",
        "++model.make_vocab_size_divisible_by=32",
    ]


def critic_overrides(reward_model: Path, port: int) -> list[str]:
    return [
        f"pretrained_checkpoint.restore_from_path={reward_model}",
        f"trainer.ppo.port={port}",
        f"trainer.ppo.inference_micro_batch_size={BATCH}",
        "model.micro_batch_size=1",
        f"model.global_batch_size={BATCH}",
        "model.optim.lr=1e-3",
        "model.optim.sched.warmup_steps=1",
        "++model.make_vocab_size_divisible_by=32",
    ]


def actor_overrides(lab: Lab, policy: Path, port: int) -> list[str]:
    prompts, test = first_rows(lab, "ppo_train.jsonl", BATCH), lab.folder / "ppo_test.jsonl"
    return [
        f"pretrained_checkpoint.restore_from_path={policy}",
        f"model.data.data_prefix={{train: [{prompts}], validation: [{test}], test: [{test}]}}",
        "model.micro_batch_size=1",
        f"model.global_batch_size={BATCH}",
        f"model.ppo.num_rollout_samples={BATCH}",
        "model.ppo.num_val_samples=4",
        "model.ppo.rollout_micro_batch_size=8",
        "model.ppo.val_rollout_micro_batch_size=2",
        "model.ppo.forward_micro_batch_size=2",
        "model.ppo.length_params.max_length=16",
        # What is sampled depends on the rank that draws it.
        "model.ppo.sampling_params.use_greedy=true",
        "model.optim.lr=1e-4",
        "model.optim.sched.warmup_steps=1",
        "trainer.ppo.max_epochs=100",
        f"trainer.ppo.max_steps={STEPS}",
        f"trainer.ppo.val_check_interval={STEPS}",
        "exp_manager.create_checkpoint_callback=false",
        "remote_critic_rm.critic.ip=127.0.0.1",
        f"remote_critic_rm.critic.port={port}",
        "++model.make_vocab_size_divisible_by=32",
    ]


@pytest.fixture(scope="module")
def sft_alone(lab: Lab, base: Path) -> Run:
    return lab.run("sft", "sft_alone", *sft_overrides(lab, base), "exp_manager.create_checkpoint_callback=false")


@pytest.fixture(scope="module")
def rm_alone(lab: Lab, reward_model: Run) -> Run:
    return lab.run("reward_model", "rm_alone", *rm_overrides(lab, reward_model.nemo("cai_reward_model")))


def agree(run: Run, alone: Run, counts: dict[str, int]) -> None:
    for key, count in counts.items():
        values, expected = run.series(key), alone.series(key)
        assert len(values) == len(expected) == count
        assert values == pytest.approx(expected, abs=TOLERANCE), key


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sft_has_the_losses_of_one_process(lab: Lab, base: Path, sft_alone: Run, layout: str) -> None:
    once = "exp_manager.create_checkpoint_callback=false"
    agree(
        two_processes(lab, "sft", f"sft_{layout}", *sft_overrides(lab, base), *LAYOUTS[layout], once),
        sft_alone,
        SUPERVISED,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_reward_model_has_the_losses_of_one_process(
    lab: Lab, reward_model: Run, rm_alone: Run, layout: str
) -> None:
    overrides = rm_overrides(lab, reward_model.nemo("cai_reward_model"))
    agree(two_processes(lab, "reward_model", f"rm_{layout}", *overrides, *LAYOUTS[layout]), rm_alone, SUPERVISED)


def test_a_checkpoint_of_two_pipeline_stages_goes_on_in_one_process(lab: Lab, base: Path, sft_alone: Run) -> None:
    name = "resumed_pipeline"
    two_processes(lab, "sft", name, *sft_overrides(lab, base, STEPS // 2), *LAYOUTS["pipeline"])
    both = lab.run("sft", name, *sft_overrides(lab, base))
    assert [row["step"] for row in both.metrics if "train/loss" in row] == list(range(STEPS))
    assert both.series("train/loss") == pytest.approx(sft_alone.series("train/loss"), abs=TOLERANCE)


def ppo_run(
    lab: Lab,
    sft: Run,
    reward_model: Run,
    name: str,
    *,
    layout: Sequence[str] = (),
    critic_ranks: int = 1,
    actor_ranks: int = 1,
    critic_more: Sequence[str] = (),
    actor_more: Sequence[str] = (),
    passing: Callable[[str], AbstractContextManager[None]] | None = None,
) -> tuple[Run, Run]:
    """Run the actor and the critic of PPO.

    Args:
        lab: where they run.
        sft: has the actor's model.
        reward_model: has the critic's.
        name: ends the names of the run's files.
        layout: how each shares its work.
        critic_ranks: processes of the critic, one or two.
        actor_ranks: processes of the actor, one or two.
        critic_more: further overrides of the critic.
        actor_more: further overrides of the actor.
        passing: what happens to each request of the actor to the critic (`proxy.proxy`); None without a proxy.
    """
    port = jobs.free_port()
    critic = [*critic_overrides(reward_model.nemo("cai_reward_model"), port), *layout, *critic_more]
    servers = (two_ranks if critic_ranks == 2 else one_rank)(lab, "critic_server", f"critic_{name}", *critic)
    try:
        jobs.wait_ready(servers[0], jobs.critic_urls("127.0.0.1", port), TIMEOUT_S)
        with nullcontext(port) if passing is None else proxy(port, passing) as seen_port:
            actor = [*actor_overrides(lab, sft.nemo("cai_sft"), seen_port), *layout, *actor_more]
            ran = (two_processes if actor_ranks == 2 else Lab.run)(lab, "ppo_actor", f"actor_{name}", *actor)
    finally:
        stop(servers)
    log_dir = lab.folder / f"critic_{name}"
    return ran, Run(log_dir, servers[0].log, list(read_metrics(log_dir)))


def one_rank(lab: Lab, stage: str, name: str, *overrides: str) -> list[jobs.Job]:
    """Start a stage as one process."""
    command = [*overrides, f"exp_manager.explicit_log_dir={lab.folder / name}"]
    return [jobs.start(f"{PACKAGE}.{stage}", command, lab.folder / f"{name}.log", ENV)]


@pytest.fixture(scope="module")
def ppo_alone(lab: Lab, sft: Run, reward_model: Run) -> tuple[Run, Run]:
    return ppo_run(lab, sft, reward_model, "alone")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ppo_has_the_rewards_and_losses_of_one_process_each(
    lab: Lab, sft: Run, reward_model: Run, ppo_alone: tuple[Run, Run], layout: str
) -> None:
    actor, critic = ppo_run(lab, sft, reward_model, layout, layout=LAYOUTS[layout], critic_ranks=2, actor_ranks=2)
    agree(actor, ppo_alone[0], ACTOR)
    agree(critic, ppo_alone[1], CRITIC)


def test_ppo_asks_a_critic_that_is_slow_to_learn_for_nothing_earlier(
    lab: Lab, sft: Run, reward_model: Run, ppo_alone: tuple[Run, Run]
) -> None:
    """Upstream's actor would get the values of the critic before its training, and a checkpoint of that."""
    trained: list[str] = []
    learning, asked = threading.Event(), dict.fromkeys(("critic_infer", "critic_save"), 0)
    overtaking: list[str] = []

    @contextmanager
    def late(path: str) -> Iterator[None]:
        name, _, what = path.removeprefix("/v2/models/").partition("/")
        if what != "infer":
            yield
        elif name == "critic_train":
            learning.set()
            time.sleep(3)
            yield
            trained.append(path)
            learning.clear()
        else:
            asked[name] += 1
            overtaking.extend([name] if learning.is_set() else [])
            yield

    # Both data-parallel processes ask for values, and one of them alone has sent what the critic is to learn.
    actor, critic = ppo_run(lab, sft, reward_model, "late", actor_ranks=2, passing=late)
    assert len(trained) == STEPS
    assert asked["critic_infer"] > STEPS
    assert asked["critic_save"] == 1
    assert not overtaking
    agree(actor, ppo_alone[0], ACTOR)
    agree(critic, ppo_alone[1], CRITIC)


@dataclass
class FakeCommunicator:
    """In place of upstream's: notes what is sent, and answers at once."""

    sent: list[str] = field(default_factory=list)

    def send_data_to_server(self, server_name: str, data: dict[str, Any], batching: bool = True) -> Future[str]:
        self.sent.append(server_name)
        answer: Future[str] = Future()
        answer.set_result(f"of {server_name}")
        return answer

    def close(self) -> None:
        self.sent.append("closed")


def test_what_is_asked_of_a_critic_waits_for_its_training() -> None:
    import torch.distributed as dist

    from nemo_aligner_cai.training.cpu.install import install_patches

    install_patches()
    from nemo_aligner_cai.training.critic_client import _OrderedCommunicator

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        servers = FakeCommunicator()
        asked = _OrderedCommunicator(servers, {"infer", "save"})
        training: Future[None] = Future()
        asked.wait_for(training)
        answers = [asked.send_data_to_server(name, {}) for name in ("infer", "save", "reward_model")]
        time.sleep(0.2)
        assert servers.sent == ["reward_model"]
        training.set_result(None)
        assert [answer.result() for answer in answers] == ["of infer", "of save", "of reward_model"]
        assert servers.sent == ["reward_model", "infer", "save"]

        failed: Future[None] = Future()
        failed.set_exception(ValueError("out of memory"))
        asked.wait_for(failed)
        for answer in (asked.send_data_to_server("save", {}), asked.trained):
            with pytest.raises(CaiError, match=r"the critic server failed to train.*\(out of memory\)"):
                answer.result()
        asked.close()
        assert servers.sent == ["reward_model", "infer", "save", "closed"]
    finally:
        dist.destroy_process_group()


def test_a_critic_that_cannot_train_ends_the_run(lab: Lab, sft: Run, reward_model: Run) -> None:
    """Upstream's actor drops the critic's answer, and would go on with one that never learns."""

    @contextmanager
    def failing(path: str) -> Iterator[None]:
        if path.endswith("critic_train/infer"):
            raise Refused
        yield

    with pytest.raises(CaiError, match=r"exit code 1\n(.*\n)*.*the critic server failed to train"):
        ppo_run(lab, sft, reward_model, "failing", actor_ranks=2, passing=failing)
    for rank in ("0", "1"):
        assert "the critic server failed to train" in (lab.folder / f"actor_failing.{rank}.log").read_text("utf-8")


def test_two_processes_that_go_on_with_ppo_sample_what_they_would_have_sampled(
    lab: Lab, sft: Run, reward_model: Run
) -> None:
    keep = ["exp_manager.create_checkpoint_callback=true", "exp_manager.checkpoint_callback_params.save_top_k=-1"]
    # Upstream's critic tells its checkpoints no epoch, which a verbose one asks for.
    critic = [*keep, "++exp_manager.checkpoint_callback_params.verbose=false"]
    half = STEPS // 2
    sampled = ["model.ppo.sampling_params.use_greedy=false", f"trainer.ppo.val_check_interval={half}"]

    def run(name: str) -> tuple[Run, Run]:
        return ppo_run(lab, sft, reward_model, name, actor_ranks=2, critic_more=critic, actor_more=[*keep, *sampled])

    whole = run("whole")
    for part in ("actor", "critic"):
        (saved,) = (lab.folder / f"{part}_whole" / "checkpoints").glob(f"*-step={half}*")
        shutil.copytree(saved, lab.folder / f"{part}_on" / "checkpoints" / f"{saved.name}-last")
    for uninterrupted, on, counts in zip(whole, run("on"), (ACTOR, CRITIC), strict=True):
        for key in counts:
            assert on.series(key) == pytest.approx(uninterrupted.series(key)[-len(on.series(key)) :], rel=1e-6), key
        assert [row["step"] for row in on.metrics if "train/loss" in row or "train_rollouts/rewards" in row] == [2, 3]
