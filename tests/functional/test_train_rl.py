# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The reward model, and PPO against a real critic server."""

import math
from pathlib import Path

import pytest

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.evaluation.known_answers.reward_server import RewardServer, read_pairs, scored_pairs
from nemo_aligner_cai.training.checks import model_file
from nemo_aligner_cai.training.curves import Quantity, Split, read_curves, reward_against_kl
from nemo_aligner_cai.training.launch import jobs, quiet
from nemo_aligner_cai.training.metrics.files import read_metrics
from tests.functional import world
from tests.functional.conftest import ENV, PACKAGE, Lab, Run


def weights(nemo: Path, folder: Path) -> dict[str, object]:
    """The tensors of a .nemo model by name."""
    import tarfile

    import torch
    import torch.distributed.checkpoint as checkpoint

    with tarfile.open(nemo) as archive:
        archive.extractall(folder, filter="data")
    reader = checkpoint.FileSystemReader(str(folder / "model_weights"))
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if hasattr(entry, "size")
    }
    checkpoint.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def test_the_reward_model_ranks_held_out_pairs(reward_model: Run) -> None:
    assert reward_model.series("val/acc")[-1] >= 0.9  # chance is 0.5
    assert reward_model.nemo("cai_reward_model").is_file()
    curves = {(curve.quantity, curve.split): curve.points for curve in read_curves(reward_model.log_dir)}
    assert {quantity for quantity, _ in curves} == {Quantity.LOSS, Quantity.ACCURACY, Quantity.MARGIN}
    margins = curves[Quantity.MARGIN, Split.TRAINING]
    assert [step for step, _ in margins] == list(range(1, 16)) and margins[-1][1] > margins[0][1]
    assert [step for step, _ in curves[Quantity.ACCURACY, Split.VALIDATION]] == [15]


def test_ppo_raises_the_reward_and_saves_a_changed_model(
    lab: Lab, base: Path, sft: Run, reward_model: Run, free_port: int, tmp_path: Path
) -> None:
    critic = [
        f"pretrained_checkpoint.restore_from_path={reward_model.nemo('cai_reward_model')}",
        f"trainer.ppo.port={free_port}",
        "trainer.ppo.inference_micro_batch_size=32",
        "model.micro_batch_size=32",
        "model.global_batch_size=32",
        "model.optim.lr=1e-3",
        "model.optim.sched.warmup_steps=1",
        "trainer.ppo.max_steps=10",
        f"exp_manager.explicit_log_dir={lab.folder / 'critic'}",
    ]
    actor = [
        f"pretrained_checkpoint.restore_from_path={sft.nemo('cai_sft')}",
        lab.splits("ppo"),
        "model.micro_batch_size=16",
        # Two optimizer steps for each step of PPO.
        "model.global_batch_size=16",
        "model.ppo.num_rollout_samples=32",
        "model.ppo.num_val_samples=16",
        "model.ppo.rollout_micro_batch_size=32",
        "model.ppo.val_rollout_micro_batch_size=16",
        "model.ppo.forward_micro_batch_size=16",
        "model.ppo.length_params.max_length=20",
        "model.optim.lr=1e-3",
        "model.optim.sched.warmup_steps=1",
        "trainer.ppo.max_epochs=100",
        "trainer.ppo.max_steps=8",
        "trainer.ppo.val_check_interval=8",
        "trainer.ppo.initial_policy_kl_penalty=0.01",
        "remote_critic_rm.critic.ip=127.0.0.1",
        f"remote_critic_rm.critic.port={free_port}",
    ]
    urls = jobs.critic_urls("127.0.0.1", free_port)
    with jobs.server(f"{PACKAGE}.critic_server", critic, lab.folder / "critic.log", urls, env=ENV) as server:
        # Upstream fails in its first rollout, when the client of the critic is open already. It must not hang.
        with pytest.raises(CaiError, match=r"exit code 1\n(.*\n)*.*TypeError"):
            lab.run("ppo_actor", "failing", *actor, "model.ppo.sampling_params.temperature=warm")
        with pytest.raises(CaiError, match=r"exit code 2\n(.*\n)*.*80 of 80 texts are longer than 4 tokens"):
            lab.run("ppo_actor", "refused", *actor, f"model.ppo.length_params.max_length={world.TOKENS - 4}")
        # The critic holds the reward model, whose rewards the report needs.
        pairs = list(scored_pairs(read_pairs(lab.folder / "rm_test.jsonl"), RewardServer("127.0.0.1", free_port)))
        assert sum(pair["chosen_score"] > pair["rejected_score"] for pair in pairs) >= 0.9 * len(pairs) > 0
        run = lab.run("ppo_actor", "actor", *actor)
        few = ["trainer.ppo.max_steps=2", "trainer.ppo.val_check_interval=2", "model.ppo.entropy_bonus=0.01"]
        # A model that has not been through SFT lacks keys that PPO reads.
        source = f"pretrained_checkpoint.restore_from_path={base}"
        adapters = lab.run("ppo_actor", "actor_lora", *actor, *few, "peft=lora", source)
        assert server.poll() is None
    assert server.poll() == 0, quiet.tail(server.log)
    assert not jobs.answers(urls[0])

    # A10: by this a converted folder gets NeMo's chat template.
    for path in (sft.nemo("cai_sft"), run.nemo("cai_ppo_actor")):
        assert model_file.model_config(path)["data"]["chat"] is True
    assert len(adapters.series("train_rollouts/rewards")) == 2
    kinds = {Quantity.REWARD, Quantity.KL, Quantity.LENGTH}
    assert {curve.quantity for curve in read_curves(run.log_dir)} == kinds
    assert len(reward_against_kl(read_curves(run.log_dir))) == 8
    curves = {curve.quantity: curve.points for curve in read_curves(adapters.log_dir)}
    assert curves.keys() == kinds | {Quantity.ENTROPY}
    # In nats per token: that of a uniform choice is the logarithm of the vocabulary's size.
    assert all(0 < entropy < math.log(256) for _, entropy in curves[Quantity.ENTROPY])
    assert adapters.nemo("cai_ppo_actor").stat().st_size < sft.nemo("cai_sft").stat().st_size / 2
    rates = run.series("train_optim/lr")
    assert rates[3] > 4e-4 > 1e-4 > rates[-1], "half of the schedule after half of the run, and its end at the end"
    rates = [row["train/lr"] for row in read_metrics(lab.folder / "critic") if row.get("train/lr") is not None]
    assert len(rates) == 10, "a batch of rollouts for each of the 8 and 2 steps"
    assert rates[5] > 4e-4 > 1e-4 > rates[-1], "the critic's own schedule, not the 15 steps of the reward model's"
    rewards = run.series("train_rollouts/rewards")
    assert len(rewards) == 8
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3
    before = weights(sft.nemo("cai_sft"), tmp_path / "before")
    after = weights(run.nemo("cai_ppo_actor"), tmp_path / "after")
    assert before.keys() == after.keys()
    changed = [name for name in before if not bool((before[name] == after[name]).all())]  # type: ignore[attr-defined]
    assert len(changed) > len(before) / 2
