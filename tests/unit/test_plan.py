# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai plan`: each formula against figures worked out by hand, and the configuration that is shipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_aligner_cai.cli import main
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.planning import estimate
from nemo_aligner_cai.planning.config import PlanConfig, Trainer
from nemo_aligner_cai.planning.estimate import ResourceEstimate
from nemo_aligner_cai.sections import load_config


@pytest.fixture
def shipped(repo_root: Path) -> Path:
    return repo_root / "examples" / "nlp" / "cai" / "mistral_7b.yaml"


def _config(path: Path, *overrides: str) -> PlanConfig:
    return load_config(path, overrides, PlanConfig)


def _steps(path: Path, *overrides: str) -> dict[str, ResourceEstimate]:
    return {needs.step: needs for needs in estimate.plan(_config(path, *overrides))}


def _trainer(**changes: object) -> Trainer:
    values = {
        "gpus": 8,
        "tensor_parallel": 2,
        "pipeline_parallel": 1,
        "micro_batch": 1,
        "global_batch": 8,
        "seq_length": 1000,
        "epochs": 1,
        "recompute": "none",
        "checkpoints": 2,
    }
    return Trainer.model_validate(values | changes)


def test_training_takes_six_operations_a_parameter_and_token_and_eight_with_recomputation() -> None:
    assert estimate.training_flops(10, 100, recompute=False) == 6000
    assert estimate.training_flops(10, 100, recompute=True) == 8000
    assert estimate.forward_flops(10, 100) == 2000


def test_weights_gradients_and_adam() -> None:
    # 800 parameters on two ways of tensor parallelism and four copies: 400 x (6 + 12 / 4).
    assert estimate.training_bytes(800, _trainer()) == 3600
    assert estimate.training_bytes(800, _trainer(tensor_parallel=1, gpus=1)) == 800 * 18


def test_activations_with_and_without_recomputation(shipped: Path) -> None:
    model = _config(shipped, "model.layers=2", "model.hidden=10", "model.vocabulary=100").model
    # A layer: 1000 tokens x 10 x (10 + 24 / 2); logits: 4 x 1000 x 100 / 2.
    assert estimate.activation_bytes(model, _trainer()) == 2 * 220_000 + 200_000
    assert estimate.activation_bytes(model, _trainer(recompute="full")) == 2 * 20_000 + 220_000 + 200_000


def test_keys_and_values_of_mistral_take_128_kib_a_token(shipped: Path) -> None:
    config = _config(shipped, "generation.gpus=1", "generation.batch_size=1")
    weights = 2 * config.model.parameters
    assert estimate.serving_bytes(config.model, config.generation, 1) - weights == 128 * 1024


def test_a_checkpoint_is_seven_times_the_nemo_file() -> None:
    assert estimate.checkpoint_bytes(100, 0) == 200
    assert estimate.checkpoint_bytes(100, 2) == 200 + 2 * 1400


@pytest.mark.parametrize(
    ("overrides", "calls"),
    [
        ((), (3, 4, 2)),
        (("generation.revisions=2",), (5, 4, 2)),
        (("judge.both_orders=false",), (3, 4, 1)),
        (("judge.strategy=multiple-choice", "judge.pairs=all"), (3, 4, 12)),
        (("judge.strategy=multiple-choice", "judge.pairs=all", "generation.candidates=2"), (3, 2, 2)),
    ],
)
def test_calls_are_those_of_the_generation_steps(
    shipped: Path, overrides: tuple[str, ...], calls: tuple[int, int, int]
) -> None:
    assert estimate.calls_per_prompt(_config(shipped, *overrides)) == calls


def test_the_hosted_judge_takes_calls_over_its_quota_and_an_own_one_operations_over_speed(shipped: Path) -> None:
    hosted = _steps(shipped, "data.rl_prompts=1200")["4 RL-CAI data: judge"]
    assert hosted.judge_calls == 2400
    assert hosted.hours == 1.0  # 2400 calls, 40 a minute
    assert hosted.gpu_hours == 0.0
    own = _steps(shipped, "data.rl_prompts=1200", "judge.own=true")["4 RL-CAI data: judge"]
    # 2400 x (400 + 40 + 4 x 200 + 150) tokens, 2 x 12.9e9 operations each, on 8 x 989e12 x 0.05 a second.
    assert own.hours == pytest.approx(2400 * 1390 * 25.8e9 / (8 * 989e12 * 0.05) / 3600)
    assert own.gpu_hours == pytest.approx(8 * own.hours)


def test_tokens_of_critique_and_revision(shipped: Path) -> None:
    needs = _steps(shipped, "data.sl_prompts=10")["2 SL-CAI data"]
    assert needs.model_calls == 30
    # Read: 640, then 640 + 200 + 60, then 900 + 120 + 40.
    assert needs.tokens_in == 10 * (640 + 900 + 1060)
    assert needs.tokens_out == 10 * (200 + 120 + 200)


def test_the_reward_model_reads_both_texts_padded(shipped: Path) -> None:
    needs = _steps(shipped, "data.rl_prompts=1000", "data.helpful_pairs=520")["5 reward model"]
    assert needs.tokens_in == pytest.approx(2 * (1000 * 0.8 * 0.6 + 520) * 4096)


def test_ppo_stops_at_its_steps_or_at_its_prompts(shipped: Path) -> None:
    assert _steps(shipped, "ppo.max_steps=2")["6 RL-CAI model"].model_calls == 1024
    few = ("data.rl_prompts=100", "data.helpful_pairs=20", "ppo.max_steps=2")
    assert _steps(shipped, *few)["6 RL-CAI model"].model_calls == 100


def test_what_does_not_fit_is_said(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not _steps(shipped, "hardware.memory_gb=40")["3 SL-CAI model"].fits
    assert main(["plan", str(shipped), "hardware.memory_gb=40"]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_estimates_are_told_from_counts(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(shipped), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"][0] for row in rows] == ["1", "2", "3", "4", "4", "5", "6", "a"]
    total = rows[-1]
    assert total["counted"]["judge_calls"] == 2 * 38961
    for key in ("hours", "disk_gb"):
        assert total["estimated"][key] == pytest.approx(sum(row["estimated"][key] for row in rows[:-1]))
    assert main(["plan", str(shipped)]) == 0
    assert "~ estimated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.layer=1", r"no key 'model\.layer'"),
        ("model={parameters: 1}", r"model\.layers: Field required"),
        ("model.layers=many", r"model\.layers: "),
        ("judge={strategy: x, extra: 1}", r"judge\."),
        ("sft.tensor_parallel=3", r"sft\.gpus=8 is not a multiple"),
        ("ppo.actor.global_batch=65", r"ppo\.actor\.global_batch=65 is not a multiple"),
        ("judge.strategy=oracle", "oracle"),
    ],
)
def test_what_is_wrong_is_named(shipped: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        estimate.plan(_config(shipped, override))


def test_its_trainers_are_those_of_the_config_groups(shipped: Path) -> None:
    pytest.importorskip("hydra", reason="the training extra is not installed")
    from nemo_aligner_cai.training.config import compose

    plan = _config(shipped)
    jobs = {"sft": plan.sft, "reward_model": plan.reward_model, "ppo_actor": plan.ppo.actor}
    for stage, job in (jobs | {"ppo_critic": plan.ppo.critic}).items():
        cfg = compose(f"cai_{stage}", ["model=mistral_7b", "hardware=8xh100"])
        sizes = cfg.model.data.train_ds if stage == "sft" else cfg.model
        model = cfg.model
        assert job.gpus == cfg.trainer.devices
        assert job.tensor_parallel == model.tensor_model_parallel_size, stage
        assert job.pipeline_parallel == model.pipeline_model_parallel_size
        assert (job.micro_batch, job.global_batch) == (sizes.micro_batch_size, sizes.global_batch_size), stage
        assert job.seq_length == model.encoder_seq_length
        assert (job.recompute == "full") == (model.get("activations_checkpoint_granularity") == "full"), stage
