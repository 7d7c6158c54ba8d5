# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Values at which upstream stops after loading a model, or goes on wrongly: each is refused, and ours are not."""

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
_TRT = "trainer.ppo.trt_llm.enable=true"
_REGRESSION = "model.reward_model_type=regression"

REFUSED = [
    # the stage's config, overrides, and the key that the error begins with
    ("cai_sft", ["trainer.precision=64"], "trainer.precision=64: 16, bf16 or 32"),
    ("cai_sft", ["model.peft.restore_from_path=absent.nemo"], "model.peft.restore_from_path=absent.nemo: there is no"),
    ("cai_sft", ["model.data.train_ds.drop_last=false"], "model.data.train_ds.drop_last=False"),
    ("cai_sft", ["model.data.train_ds.packed_sequence=true"], "model.data.train_ds.packed_sequence=True"),
    ("cai_sft", ["model.data.validation_ds.packed_sequence=true"], "model.data.validation_ds.packed_sequence=True"),
    ("cai_dpo", ["model.peft.restore_from_path=absent.nemo"], "model.peft.restore_from_path=absent.nemo"),
    ("cai_dpo", ["model.data.data_impl=mmap"], "model.data.data_impl=mmap: jsonl"),
    ("cai_dpo", ["model.virtual_pipeline_model_parallel_size=2"], "model.virtual_pipeline_model_parallel_size=2"),
    ("cai_dpo", ["model.dpo.preference_loss=simpo"], "model.dpo.preference_loss=simpo: one of dpo, ipo, "),
    ("cai_dpo", ["model.dpo.ref_policy_kl_penalty=0"], "model.dpo.ref_policy_kl_penalty=0: more than 0"),
    ("cai_dpo", ["model.dpo.ref_policy_kl_penalty=x"], "model.dpo.ref_policy_kl_penalty=x"),
    ("cai_dpo", ["model.data.validation_drop_last=false"], "model.data.validation_drop_last=False"),
    ("cai_reward_model", ["model.data.data_impl=mmap"], "model.data.data_impl=mmap"),
    ("cai_reward_model", ["model.fp8=true"], "model.fp8=True: reward models"),
    ("cai_reward_model", ["model.reward_model_type=ranking"], "model.reward_model_type=ranking: binary_ranking or"),
    ("cai_reward_model", ["model.regression.num_attributes=0"], "model.regression.num_attributes=0"),
    ("cai_reward_model", ["model.regression.attribute_weights=[1, 1]"], "model.regression.attribute_weights=[1, 1]"),
    ("cai_reward_model", ["model.regression.attribute_weights=1"], "model.regression.attribute_weights=1"),
    (
        "cai_reward_model",
        ["trainer.rm.train_random_sampler=false", "trainer.rm.max_epochs=2"],
        "trainer.rm.train_random_sampler=False: true is needed for more than one epoch",
    ),
    (
        "cai_reward_model",
        [_REGRESSION, "model.reward_standardization.enable=true"],
        "model.reward_standardization.enable=True",
    ),
    ("cai_reward_model", [_REGRESSION, "model.loss_func=l1"], "model.loss_func=l1: one of regression, "),
    (
        "cai_reward_model",
        [_REGRESSION, "model.regression.loss_func=margin_bt"],
        "model.regression.loss_func=margin_bt",
    ),
    (
        "cai_reward_model",
        [_REGRESSION, "model.regression.loss_func=margin_bt", "model.loss_func=margin_bt"],
        "model.micro_batch_size=1: the losses that compare, *_bt, need 2",
    ),
    (
        "cai_reward_model",
        [*_SPLIT, "model.data.seq_length=1022"],
        "model.data.seq_length=1022: model.sequence_parallel",
    ),
    ("cai_ppo_critic", ["model.optim.name=mcore_distributed_optim"], "model.optim.name=mcore_distributed_optim: Ne"),
    ("cai_ppo_critic", ["model.fp8=true"], "model.fp8=True"),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=0"], "trainer.ppo.inference_micro_batch_size=0"),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=[4, x]"], "trainer.ppo.inference_micro_batch_size="),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=0.5"], "trainer.ppo.inference_micro_batch_size=0.5"),
    (
        "cai_ppo_critic",
        ["trainer.ppo.strip_sequence_length_to_multiple=0"],
        "trainer.ppo.strip_sequence_length_to_multiple=0",
    ),
    ("cai_ppo_critic", ["model.forward_micro_batch_size=0"], "model.forward_micro_batch_size=0"),
    ("cai_ppo_critic", ["model.forward_micro_batch_size=null"], "model.forward_micro_batch_size=None"),
    ("cai_ppo_critic", ["model.output_sequence=false"], "model.output_sequence=False: the critic needs"),
    ("cai_ppo_critic", ["model.loss_clip_val=null"], "model.loss_clip_val=None"),
    ("cai_ppo_critic", ["model.regression.merge_attributes=false"], "model.regression.merge_attributes=False"),
    ("cai_ppo_actor", ["model.peft.restore_from_path=absent.nemo"], "model.peft.restore_from_path=absent.nemo"),
    ("cai_ppo_actor", ["model.optim.name=mcore_distributed_optim"], "model.optim.name=mcore_distributed_optim: of"),
    ("cai_ppo_actor", ["model.data.data_impl=mmap"], "model.data.data_impl=mmap"),
    (
        "cai_ppo_actor",
        ["model.virtual_pipeline_model_parallel_size=2"],
        "model.virtual_pipeline_model_parallel_size",
    ),
    ("cai_ppo_actor", ["remote_critic_rm.pad_to_length=512"], "remote_critic_rm.pad_to_length=512: at least model."),
    ("cai_ppo_actor", _SPLIT, "trainer.ppo.rollout_batch_seq_length=None: model.sequence_parallel needs"),
    (
        "cai_ppo_actor",
        [*_SPLIT, "trainer.ppo.rollout_batch_seq_length=1000"],
        "trainer.ppo.rollout_batch_seq_length=1000",
    ),
    ("cai_ppo_actor", [_TRT, "trainer.ppo.trt_llm.max_input_len=8192"], "trainer.ppo.trt_llm.max_input_len=8192"),
    ("cai_ppo_actor", [_TRT, "trainer.ppo.trt_llm.max_input_len=0"], "trainer.ppo.trt_llm.max_input_len=0"),
    (
        "cai_ppo_actor",
        [_TRT, "model.ppo.sampling_params.end_strings=['a,b']"],
        "model.ppo.sampling_params.end_strings=['a,b']: TensorRT-LLM",
    ),
]

ACCEPTED = [
    ("cai_sft", ["model.peft.restore_from_path=."]),
    ("cai_sft", ["model.data.train_ds.packed_sequence=true", "model.data.chat=false"]),
    ("cai_dpo", ["model.dpo.ref_policy_kl_penalty=0", "model.dpo.preference_loss_weight=0"]),
    ("cai_dpo", ["model.virtual_pipeline_model_parallel_size=1"]),
    ("cai_dpo", ["model.data.validation_drop_last=false", "trainer.dpo.limit_val_batches=0"]),
    ("cai_reward_model", [_REGRESSION]),
    ("cai_reward_model", ["model.regression.num_attributes=2", "model.regression.attribute_weights=[1, 1]"]),
    ("cai_reward_model", ["trainer.rm.train_random_sampler=false"]),
    ("cai_reward_model", _SPLIT),
    ("cai_ppo_critic", ["trainer.ppo.inference_micro_batch_size=[4, 8]"]),
    (
        "cai_ppo_actor",
        ["model.optim.name=mcore_distributed_optim", "model.ppo.offload_adam_states=false"],
    ),
    ("cai_ppo_actor", ["remote_critic_rm.pad_to_length=null"]),
    ("cai_ppo_actor", [*_SPLIT, "trainer.ppo.rollout_batch_seq_length=4096"]),
    ("cai_ppo_actor", ["model.sequence_parallel=true"]),
    ("cai_ppo_actor", [_TRT]),
]


@cache
def composed(name: str) -> DictConfig:
    cfg = config.compose(name, ["++model.encoder_seq_length=4096"])
    OmegaConf.set_struct(cfg, False)
    return cfg


def rules_of(name: str, overrides: list[str]) -> None:
    constraints.check(OmegaConf.merge(composed(name), OmegaConf.from_dotlist(overrides)), _STAGES[name])


@pytest.fixture(autouse=True)
def _tensorrt_llm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-LLM, as far as it is looked for."""
    (tmp_path / "tensorrt_llm.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("name", _STAGES)
def test_our_own_values_are_accepted(name: str) -> None:
    rules_of(name, [])


@pytest.mark.parametrize(("name", "overrides"), ACCEPTED)
def test_others_that_upstream_takes_are_accepted(name: str, overrides: list[str]) -> None:
    rules_of(name, overrides)


@pytest.mark.parametrize(("name", "overrides", "message"), REFUSED)
def test_what_upstream_stops_at_is_refused(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        rules_of(name, overrides)
    assert str(caught.value).startswith(message)


def test_every_rule_is_seen_to_refuse() -> None:
    keys = {key for _, _, message in REFUSED for key in [message.split("=")[0]]}
    rules = {rule.key for rules in (constraints.COMMON, *_STAGES.values()) for rule in rules}
    assert rules - keys == {"trainer.ppo.trt_llm.enable"}


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraints.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"^trainer\.ppo\.trt_llm\.enable=True: tensorrt_llm is not installed"):
        rules_of("cai_ppo_actor", [_TRT])
