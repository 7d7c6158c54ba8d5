# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Setting values on which upstream fails after loading a model are refused; the shipped values are accepted."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("hydra", reason="the training extra is not installed")

from omegaconf import DictConfig, OmegaConf

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training import config
from nemo_aligner_cai.training.checks import constraints

_STAGES = {
    "cai_sft": constraints.SFT,
    "cai_dpo": constraints.DPO,
    "cai_reward_model": constraints.REWARD_MODEL,
    "cai_ppo_critic": constraints.CRITIC,
    "cai_ppo_actor": constraints.PPO,
}
_SPLIT = ["model.sequence_parallel=true", "model.tensor_model_parallel_size=4"]
_MEGATRON_OPTIMIZER = "model.optim.name=mcore_distributed_optim"

REFUSED = [
    # the stage's config, overrides, and the setting that the error names
    ("cai_sft", ["trainer.precision=64"], "trainer.precision=64"),
    ("cai_sft", ["model.peft.restore_from_path=absent.nemo"], "model.peft.restore_from_path=absent.nemo"),
    ("cai_sft", ["model.data.train_ds.drop_last=false"], "model.data.train_ds.drop_last=False"),
    ("cai_sft", ["model.data.train_ds.shuffle=false"], "model.data.train_ds.shuffle=False"),
    ("cai_dpo", ["model.peft.restore_from_path=absent.nemo"], "model.peft.restore_from_path=absent.nemo"),
    ("cai_dpo", ["model.dpo.preference_loss=simpo"], "model.dpo.preference_loss=simpo"),
    ("cai_dpo", ["model.dpo.ref_policy_kl_penalty=0"], "model.dpo.ref_policy_kl_penalty=0"),
    ("cai_dpo", ["model.dpo.ref_policy_kl_penalty=x"], "model.dpo.ref_policy_kl_penalty=x"),
    ("cai_sft", ["model.virtual_pipeline_model_parallel_size=2"], "model.virtual_pipeline_model_parallel_size=2"),
    ("cai_dpo", ["model.virtual_pipeline_model_parallel_size=2"], "model.virtual_pipeline_model_parallel_size=2"),
    (
        "cai_ppo_actor",
        ["model.virtual_pipeline_model_parallel_size=2"],
        "model.virtual_pipeline_model_parallel_size=2",
    ),
    (
        "cai_reward_model",
        ["model.reward_model_type=regression", "model.virtual_pipeline_model_parallel_size=2"],
        "model.virtual_pipeline_model_parallel_size=2",
    ),
    ("cai_reward_model", ["model.context_parallel_size=2"], "model.context_parallel_size=2"),
    ("cai_ppo_critic", ["model.context_parallel_size=2"], "model.context_parallel_size=2"),
    ("cai_ppo_actor", ["model.context_parallel_size=2"], "model.context_parallel_size=2"),
    (
        "cai_reward_model",
        ["model.pipeline_model_parallel_size=2", "model.data.seq_length=2048"],
        "model.data.seq_length=2048",
    ),
    ("cai_reward_model", ["model.reward_model_type=ranking"], "model.reward_model_type=ranking"),
    (
        "cai_reward_model",
        ["model.reward_model_type=regression", "model.regression.loss_func=margin_bt"],
        "model.regression.loss_func=margin_bt",
    ),
    ("cai_ppo_critic", ["trainer.ppo.max_steps=-1"], "trainer.ppo.max_steps=-1"),
    ("cai_ppo_critic", [_MEGATRON_OPTIMIZER], _MEGATRON_OPTIMIZER),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=0"], "trainer.ppo.inference_micro_batch_size=0"),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=[4, x]"], "trainer.ppo.inference_micro_batch_size="),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=0.5"], "trainer.ppo.inference_micro_batch_size=0.5"),
    ("cai_ppo_actor", ["model.peft.restore_from_path=absent.nemo"], "model.peft.restore_from_path=absent.nemo"),
    (
        "cai_ppo_actor",
        ["model.ppo.sampling_params.end_strings=null"],
        "model.ppo.sampling_params.end_strings=None",
    ),
    ("cai_ppo_actor", [_MEGATRON_OPTIMIZER], _MEGATRON_OPTIMIZER),
    ("cai_ppo_actor", ["remote_critic_rm.pad_to_length=512"], "remote_critic_rm.pad_to_length=512"),
    ("cai_ppo_actor", _SPLIT, "trainer.ppo.rollout_batch_seq_length=None"),
    (
        "cai_ppo_actor",
        [*_SPLIT, "trainer.ppo.rollout_batch_seq_length=1000"],
        "trainer.ppo.rollout_batch_seq_length=1000",
    ),
]

ACCEPTED = [
    ("cai_sft", ["model.peft.restore_from_path=."]),
    ("cai_dpo", ["model.dpo.ref_policy_kl_penalty=0", "model.dpo.preference_loss_weight=0"]),
    ("cai_sft", ["model.context_parallel_size=2"]),
    ("cai_dpo", ["model.context_parallel_size=2"]),
    ("cai_reward_model", ["model.virtual_pipeline_model_parallel_size=2"]),
    ("cai_reward_model", ["model.pipeline_model_parallel_size=2"]),
    ("cai_reward_model", ["model.data.seq_length=2048"]),
    ("cai_reward_model", ["model.reward_model_type=regression"]),
    ("cai_ppo_critic", ["trainer.ppo.max_steps=240"]),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=[4, 8]"]),
    ("cai_ppo_actor", [_MEGATRON_OPTIMIZER, "model.ppo.offload_adam_states=false"]),
    ("cai_ppo_actor", ["remote_critic_rm.pad_to_length=null"]),
    ("cai_ppo_actor", [*_SPLIT, "trainer.ppo.rollout_batch_seq_length=4096"]),
    ("cai_ppo_actor", ["model.sequence_parallel=true"]),
    ("cai_ppo_actor", ["trainer.ppo.trt_llm.enable=true"]),
]


@cache
@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "trainer.sft.max_stepz=1",
            r"trainer\.sft\.max_stepz; did you mean trainer\.sft\.max_steps, which .*cai_sft\.yaml",
        ),
        ("sft.trainer.devices=1", r"did you mean trainer\.devices, which .*cai_sft\.yaml sets\? \+\+sft\.trainer"),
        ("trainer.micro_batch_size=1", r"did you mean model\..*micro_batch_size, which "),
        ("hardwar=cpu", r"there is no key hardwar; did you mean the group hardware, one of 1xgpu, .*cpu"),
        ("hardware=9xh100", r"hardware=9xh100: there is no such option; did you mean hardware=8xh100\? known: 1xgpu"),
        ("model=mistral", r"did you mean model=mistral_7b\?"),
        ("qqq=1", r"there is no key qqq; \+\+qqq=\.\.\. adds it"),
    ],
)
def test_a_wrong_override_names_the_key_that_was_meant_and_its_file(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.compose("cai_sft", [override])


def composed(name: str) -> DictConfig:
    cfg = config.compose(name, ["++model.encoder_seq_length=4096"])
    OmegaConf.set_struct(cfg, False)
    return cfg


def check(name: str, overrides: list[str]) -> None:
    constraints.check(OmegaConf.merge(composed(name), OmegaConf.from_dotlist(overrides)), _STAGES[name])


@pytest.fixture(autouse=True)
def _tensorrt_llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is found as TensorRT-LLM."""
    (tmp_path / "tensorrt_llm.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("name", _STAGES)
def test_the_shipped_values_are_accepted(name: str) -> None:
    check(name, [])


@pytest.mark.parametrize(("name", "overrides"), ACCEPTED)
def test_other_valid_values_are_accepted(name: str, overrides: list[str]) -> None:
    check(name, overrides)


@pytest.mark.parametrize(("name", "overrides", "setting"), REFUSED)
def test_values_on_which_upstream_fails_are_refused(name: str, overrides: list[str], setting: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(name, overrides)
    assert str(caught.value).startswith(setting)


def test_every_constraint_is_tested() -> None:
    tested = {setting.split("=")[0] for _, _, setting in REFUSED}
    keys = {constraint.key for stage in (constraints.COMMON, *_STAGES.values()) for constraint in stage}
    assert keys - tested == {"trainer.ppo.trt_llm.enable"}


def test_tensorrt_llm_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^trainer\.ppo\.trt_llm\.enable=True: tensorrt_llm"):
        check("cai_ppo_actor", ["trainer.ppo.trt_llm.enable=true"])
