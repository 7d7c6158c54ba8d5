# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Values at which NeMo-Aligner 0.7.0 stops after the model is loaded, or steps into the training; or goes on wrongly.

Each rule stands for an assertion, an exception or a silent neglect of upstream's, named beside it; a stage has a list.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import schedule
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class SettingConstraint:
    """What a setting must be.

    Attributes:
        key: the setting's.
        holds: whether a value, None where there is none, is one that upstream takes in this configuration.
        needed: what is needed in its place.
    """

    key: str
    holds: Callable[[Any, DictConfig], bool]
    needed: str


def check(cfg: DictConfig, rules: Sequence[SettingConstraint]) -> None:
    """Raise UsageError for the first rule of `COMMON`, and of a stage's own, that does not hold."""
    for rule in (*COMMON, *rules):
        value = select(cfg, rule.key)
        if not rule.holds(value, cfg):
            raise UsageError(f"{rule.key}={value}: {rule.needed}")


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def _no_more_than(value: Any, other: Any) -> bool:
    return not isinstance(value, int) or not isinstance(other, int) or value <= other


def _split_by_tensor(value: Any, cfg: DictConfig) -> bool:
    """Whether a length can be split among tensor-parallel processes, where sequence parallelism asks for that."""
    size = select(cfg, "model.tensor_model_parallel_size")
    split = bool(select(cfg, "model.sequence_parallel")) and isinstance(size, int) and size > 1
    return not split or (isinstance(value, int) and value % size == 0)


def _rollouts_split(value: Any, cfg: DictConfig) -> bool:
    # Rollouts longer than it are not padded, and data.seq_length is the longest.
    longest = select(cfg, "model.data.seq_length")
    return _split_by_tensor(value, cfg) and (_split_by_tensor(None, cfg) or _no_more_than(longest, value))


def _weights_fit(value: Any, cfg: DictConfig) -> bool:
    if value is None:
        return True
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and len(value) == (select(cfg, "model.regression.num_attributes") or 1)


def _regression(cfg: DictConfig) -> bool:
    return select(cfg, "model.reward_model_type") == "regression"


def _loss(cfg: DictConfig) -> str:
    return select(cfg, "model.loss_func") or "regression"


def _trt_llm(cfg: DictConfig) -> bool:
    return bool(select(cfg, "trainer.ppo.trt_llm.enable"))


def _megatrons_own(value: Any) -> bool:
    """Whether an optimizer is Megatron-Core's, for which the model is wrapped once more than PPO looks through."""
    return value == "mcore_distributed_optim"


def _input_fits(value: Any, cfg: DictConfig) -> bool:
    response, window = (select(cfg, f"model.{key}") for key in ("ppo.length_params.max_length", "encoder_seq_length"))
    return _count(value) and (not _count(response) or _no_more_than(value + response, window))


_PRECISIONS = (16, "16", "16-mixed", "bf16", "bf16-mixed", 32, "32", "32-true")
_LOSSES = ("dpo", "ipo", "rpo_sq", "rpo_bwd_kl", "rpo_fwd_kl")
_REGRESSION_LOSSES = ("regression", "regular_bt", "margin_bt", "scaled_bt")

COMMON = (
    # NeMo's torch_dtype_from_precision
    SettingConstraint(
        "trainer.precision", lambda value, cfg: value in (None, *_PRECISIONS), "16, bf16 or 32 is needed"
    ),
)

_ADAPTERS = SettingConstraint(
    # init_peft, after the model is loaded
    "model.peft.restore_from_path",
    lambda value, cfg: value is None or os.path.exists(value),
    "there is no such file of adapters",
)
_JSON = SettingConstraint(
    # build_dataset_generic; what is no JSON is of formats that the stages' checks do not read
    "model.data.data_impl",
    lambda value, cfg: value is None or str(value).startswith("json"),
    "jsonl is needed",
)
_NO_VIRTUAL_STAGES = SettingConstraint(
    # retrieve_model_state_dict_in_cpu, swap_dict
    "model.virtual_pipeline_model_parallel_size",
    lambda value, cfg: value in (None, 1),
    "NeMo-Aligner keeps the reference policy of whole pipeline stages only; give null",
)
_HEAD = (
    # GPTRewardModel.sharded_state_dict, RewardModelHead, RewardModelType
    SettingConstraint("model.fp8", lambda value, cfg: not value, "reward models and critics take no fp8; give false"),
    SettingConstraint(
        "model.regression.num_attributes", lambda value, cfg: value is None or _count(value), "at least 1 is needed"
    ),
    SettingConstraint(
        "model.regression.attribute_weights",
        _weights_fit,
        "a weight for each of model.regression.num_attributes is needed, or null",
    ),
    SettingConstraint(
        "model.reward_model_type",
        lambda value, cfg: value in (None, "binary_ranking", "regression"),
        "binary_ranking or regression is needed",
    ),
)

SFT = (
    _ADAPTERS,
    # compute_num_steps_per_epoch
    SettingConstraint(
        "model.data.train_ds.drop_last", lambda value, cfg: value is not False, "true is needed to train"
    ),
    # build_sft_dataset
    *(
        SettingConstraint(
            f"model.data.{split}_ds.packed_sequence",
            lambda value, cfg: not (value and select(cfg, "model.data.chat")),
            "chats cannot be packed; give false",
        )
        for split in ("train", "validation")
    ),
)
DPO = (
    _ADAPTERS,
    _JSON,
    _NO_VIRTUAL_STAGES,
    # MegatronGPTDPOModel.loss_func, which divides by the penalty for IPO, and learns nothing where it is 0
    SettingConstraint(
        "model.dpo.preference_loss", lambda value, cfg: value in (None, *_LOSSES), f"one of {', '.join(_LOSSES)}"
    ),
    SettingConstraint(
        "model.dpo.ref_policy_kl_penalty",
        lambda value, cfg: select(cfg, "model.dpo.preference_loss_weight") == 0 or _positive(value),
        "more than 0 is needed to learn from preferences",
    ),
    # the first validation
    SettingConstraint(
        "model.data.validation_drop_last",
        lambda value, cfg: value is not False or not schedule.validates(cfg, "dpo"),
        "DPO needs true",
    ),
)
REWARD_MODEL = (
    *_HEAD,
    _JSON,
    # SupervisedTrainer.fit
    SettingConstraint(
        "trainer.rm.train_random_sampler",
        lambda value, cfg: value is not False or select(cfg, "trainer.rm.max_epochs") == 1,
        "true is needed for more than one epoch",
    ),
    # MegatronGPTRegressionRewardModel
    SettingConstraint(
        "model.reward_standardization.enable",
        lambda value, cfg: not (value and _regression(cfg)),
        "regression reward models take false",
    ),
    SettingConstraint(
        "model.loss_func",
        lambda value, cfg: not _regression(cfg) or _loss(cfg) in _REGRESSION_LOSSES,
        f"one of {', '.join(_REGRESSION_LOSSES)}",
    ),
    SettingConstraint(
        "model.regression.loss_func",
        lambda value, cfg: not _regression(cfg) or (value or "regression") == _loss(cfg),
        "NeMo-Aligner 0.7.0 trains with the loss of model.loss_func; give both the same, ++model.loss_func=...",
    ),
    SettingConstraint(
        "model.micro_batch_size",
        lambda value, cfg: not _regression(cfg) or _loss(cfg) == "regression" or value == 2,
        "the losses that compare, *_bt, need 2",
    ),
    SettingConstraint(
        "model.data.seq_length",
        _split_by_tensor,
        "model.sequence_parallel needs a multiple of the tensor-parallel size",
    ),
)
CRITIC = (
    *_HEAD,
    # MegatronGPTCriticModel.set_output_sequence_flag and offload_adam_states, at the first request
    SettingConstraint(
        "model.optim.name",
        lambda value, cfg: (
            not _megatrons_own(value)
            or not (
                select(cfg, "trainer.ppo.combine_rm_and_critic_server") or select(cfg, "model.offload_adam_states")
            )
        ),
        "NeMo-Aligner's critic needs distributed_fused_adam",
    ),
    # CriticServerTrainer and MegatronGPTCriticModel, at the first request
    SettingConstraint(
        "trainer.ppo.inference_micro_batch_size",
        lambda value, cfg: all(map(_count, value if isinstance(value, Sequence) else [value])),
        "a whole number of at least 1 is needed, or a list of them",
    ),
    SettingConstraint(
        "trainer.ppo.strip_sequence_length_to_multiple",
        lambda value, cfg: value is None or _count(value),
        "a whole number of at least 1 is needed, or null",
    ),
    SettingConstraint(
        "model.forward_micro_batch_size",
        # Upstream takes the micro batch's size where the key is absent, and divides by what is there.
        lambda value, cfg: _count(value) or "forward_micro_batch_size" not in cfg.model,
        "at least 1 is needed",
    ),
    SettingConstraint(
        "model.output_sequence", lambda value, cfg: value is True, "the critic needs a value for each token; give true"
    ),
    SettingConstraint(
        "model.loss_clip_val", lambda value, cfg: isinstance(value, int | float), "a number is needed; 0 clips nothing"
    ),
    SettingConstraint(
        "model.regression.merge_attributes",
        lambda value, cfg: value is not False or not select(cfg, "trainer.ppo.combine_rm_and_critic_server"),
        "PPO needs one reward for a response; give true",
    ),
)
PPO = (
    _ADAPTERS,
    _JSON,
    _NO_VIRTUAL_STAGES,
    # MegatronGPTActorModel.offload_adam_states, after the first rollout
    SettingConstraint(
        "model.optim.name",
        lambda value, cfg: not _megatrons_own(value) or not select(cfg, "model.ppo.offload_adam_states"),
        "of distributed_fused_adam alone can model.ppo.offload_adam_states move the states; give one or the other",
    ),
    # RemoteGPTRMCriticClient.infer_rm_critic, after the first rollout that is longer
    SettingConstraint(
        "remote_critic_rm.pad_to_length",
        lambda value, cfg: value is None or _no_more_than(select(cfg, "model.data.seq_length"), value),
        "at least model.data.seq_length is needed, which a rollout may have, or null; or lower that",
    ),
    # Megatron-Core's scatter_to_sequence_parallel_region, in training: generation does without
    SettingConstraint(
        "trainer.ppo.rollout_batch_seq_length",
        _rollouts_split,
        "model.sequence_parallel needs a multiple of the tensor-parallel size, at least model.data.seq_length, which "
        "a rollout may have; or lower that",
    ),
    # GPTGenerateTRTLLM
    SettingConstraint(
        "trainer.ppo.trt_llm.enable",
        lambda value, cfg: not value or importlib.util.find_spec("tensorrt_llm") is not None,
        "tensorrt_llm is not installed; give False, or work in NVIDIA's NeMo container",
    ),
    SettingConstraint(
        "trainer.ppo.trt_llm.max_input_len",
        lambda value, cfg: not _trt_llm(cfg) or _input_fits(value, cfg),
        "at least 1 is needed, and with model.ppo.length_params.max_length no more than model.encoder_seq_length",
    ),
    SettingConstraint(
        "model.ppo.sampling_params.end_strings",
        lambda value, cfg: not _trt_llm(cfg) or not any("," in text for text in value or ()),
        "TensorRT-LLM takes none with a comma",
    ),
)
