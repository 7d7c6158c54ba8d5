# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Setting values on which NeMo-Aligner 0.7.0 fails after the model is loaded, or that it silently ignores.

Each constraint names the upstream function that asserts, raises or ignores the value. Each stage has a list.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks.chat_tokens import chat_template
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class SettingConstraint:
    """A constraint on one setting.

    Attributes:
        key: the key of the setting.
        holds: tells if a value (None if unset) is valid in this configuration.
        needed: the fix, for the error message.
    """

    key: str
    holds: Callable[[Any, DictConfig], bool]
    needed: str


def check(cfg: DictConfig, stage_constraints: Sequence[SettingConstraint]) -> None:
    """Raise UsageError for the first violated constraint of `COMMON` and of the stage."""
    for constraint in (*COMMON, *stage_constraints):
        value = select(cfg, constraint.key)
        if not constraint.holds(value, cfg):
            raise UsageError(f"{constraint.key}={value}: {constraint.needed}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _fits_rollouts(value: Any, cfg: DictConfig) -> bool:
    """With sequence parallelism, rollouts must be padded to a multiple of the tensor-parallel size.

    Rollouts longer than the value are not padded, and data.seq_length is the longest.
    """
    size = select(cfg, "model.tensor_model_parallel_size")
    if not select(cfg, "model.sequence_parallel") or not isinstance(size, int) or size < 2:
        return True
    return isinstance(value, int) and value % size == 0 and _at_least_seq_length(value, cfg)


def _has_stop(value: Any, cfg: DictConfig) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and set(chat_template(cfg).stop) <= set(value)


def _at_least_seq_length(value: Any, cfg: DictConfig) -> bool:
    length = select(cfg, "model.data.seq_length")
    return not isinstance(value, int) or not isinstance(length, int) or length <= value


_PRECISIONS = (16, "16", "16-mixed", "bf16", "bf16-mixed", 32, "32", "32-true")
_DPO_LOSSES = ("dpo", "ipo", "rpo_sq", "rpo_bwd_kl", "rpo_fwd_kl")
_MEGATRON_OPTIMIZER = "mcore_distributed_optim"
"""Megatron-Core's optimizer wraps the model once more than upstream's PPO expects."""

COMMON = (
    # NeMo's torch_dtype_from_precision
    SettingConstraint("trainer.precision", lambda value, cfg: value in (None, *_PRECISIONS), "must be 16, bf16 or 32"),
)

# Only the language model's, DPO's and SteerLM's classes divide a sequence (get_batch_on_this_context_parallel_rank).
_WHOLE_SEQUENCES = SettingConstraint(
    "model.context_parallel_size",
    lambda value, cfg: value in (None, 1),
    "NeMo-Aligner 0.7.0 divides sequences among processes only in SFT and DPO; give 1 here",
)
# Their calls of Megatron-Core's interleaved schedule, and NeMo's generation, give it one iterator instead of a list.
_ONE_CHUNK = SettingConstraint(
    "model.virtual_pipeline_model_parallel_size",
    lambda value, cfg: value in (None, 1),
    "NeMo-Aligner 0.7.0 supports it only in the Bradley-Terry reward model and the critic; give null here",
)
_ADAPTERS = SettingConstraint(
    # init_peft, after the model is loaded
    "model.peft.restore_from_path",
    lambda value, cfg: value is None or os.path.exists(value),
    "there is no such adapter file",
)

SFT = (
    _ADAPTERS,
    _ONE_CHUNK,
    # compute_num_steps_per_epoch
    SettingConstraint("model.data.train_ds.drop_last", lambda value, cfg: value is not False, "must be true"),
    # train_gpt_sft.py shuffles whatever the key says
    SettingConstraint("model.data.train_ds.shuffle", lambda value, cfg: value is not False, "must be true"),
)
DPO = (
    _ADAPTERS,
    _ONE_CHUNK,
    # MegatronGPTDPOModel.loss_func, which divides by the penalty for IPO, and has no gradient if it is 0
    SettingConstraint(
        "model.dpo.preference_loss",
        lambda value, cfg: value in (None, *_DPO_LOSSES),
        f"must be one of {', '.join(_DPO_LOSSES)}",
    ),
    SettingConstraint(
        "model.dpo.ref_policy_kl_penalty",
        lambda value, cfg: (
            select(cfg, "model.dpo.preference_loss_weight") == 0 or (isinstance(value, int | float) and value > 0)
        ),
        "must be more than 0 to learn from preferences",
    ),
)
REWARD_MODEL = (
    _WHOLE_SEQUENCES,
    SettingConstraint(
        _ONE_CHUNK.key,
        lambda value, cfg: select(cfg, "model.reward_model_type") != "regression" or _ONE_CHUNK.holds(value, cfg),
        _ONE_CHUNK.needed,
    ),
    # get_loss_and_metrics: a pipeline stage receives encoder_seq_length positions, and texts are padded to seq_length
    SettingConstraint(
        "model.data.seq_length",
        lambda value, cfg: (
            (select(cfg, "model.pipeline_model_parallel_size") or 1) == 1
            or value in (None, select(cfg, "model.encoder_seq_length"))
        ),
        "model.pipeline_model_parallel_size above 1 needs the same length as model.encoder_seq_length",
    ),
    # RewardModelType
    SettingConstraint(
        "model.reward_model_type",
        lambda value, cfg: value in (None, "binary_ranking", "regression"),
        "must be binary_ranking or regression",
    ),
    # MegatronGPTRegressionRewardModel reads model.loss_func
    SettingConstraint(
        "model.regression.loss_func",
        lambda value, cfg: (
            select(cfg, "model.reward_model_type") != "regression"
            or (value or "regression") == (select(cfg, "model.loss_func") or "regression")
        ),
        "NeMo-Aligner 0.7.0 uses the loss of model.loss_func; set both to the same, ++model.loss_func=...",
    ),
)
END_STRINGS = SettingConstraint(
    # verify_is_valid_and_clamp_range_; MegatronGPTActorModel masks replies that have not ended, also TensorRT-LLM's
    "model.ppo.sampling_params.end_strings",
    _has_stop,
    "must be a list with turn_start of model.data.chat_prompt_tokens, with which the model ends its replies; remove "
    "the override for that token. PPO learns only from replies that have ended",
)
CRITIC = (
    _WHOLE_SEQUENCES,
    # ModelPT.setup_optimization, which creates no schedule for a negative length
    SettingConstraint(
        "trainer.ppo.max_steps",
        lambda value, cfg: _is_count(select(cfg, "trainer.max_steps")),
        "must be a positive integer: the length of the learning-rate schedule, in optimizer steps",
    ),
    # MegatronGPTCriticModel.set_output_sequence_flag and offload_adam_states, at the first request
    SettingConstraint(
        "model.optim.name",
        lambda value, cfg: (
            value != _MEGATRON_OPTIMIZER
            or not any(
                select(cfg, key) for key in ("trainer.ppo.combine_rm_and_critic_server", "model.offload_adam_states")
            )
        ),
        "NeMo-Aligner's critic needs distributed_fused_adam",
    ),
    # CriticServerTrainer, at the first request
    SettingConstraint(
        "trainer.ppo.inference_micro_batch_size",
        lambda value, cfg: all(map(_is_count, value if isinstance(value, Sequence) else [value])),
        "must be a positive integer, or a list of them",
    ),
)
PPO = (
    _ADAPTERS,
    _WHOLE_SEQUENCES,
    _ONE_CHUNK,
    END_STRINGS,
    # MegatronGPTActorModel.offload_adam_states, after the first rollout
    SettingConstraint(
        "model.optim.name",
        lambda value, cfg: value != _MEGATRON_OPTIMIZER or not select(cfg, "model.ppo.offload_adam_states"),
        "model.ppo.offload_adam_states supports distributed_fused_adam only; change one of the two",
    ),
    # RemoteGPTRMCriticClient.infer_rm_critic, after the first longer rollout
    SettingConstraint(
        "remote_critic_rm.pad_to_length",
        _at_least_seq_length,
        "must be null or at least model.data.seq_length, the longest rollout",
    ),
    # Megatron-Core's scatter_to_sequence_parallel_region, in training but not in generation
    SettingConstraint(
        "trainer.ppo.rollout_batch_seq_length",
        _fits_rollouts,
        "model.sequence_parallel needs a multiple of the tensor-parallel size that is at least model.data.seq_length, "
        "the longest rollout",
    ),
    # GPTGenerateTRTLLM
    SettingConstraint(
        "trainer.ppo.trt_llm.enable",
        lambda value, cfg: not value or importlib.util.find_spec("tensorrt_llm") is not None,
        "tensorrt_llm is not installed; give False, or use NVIDIA's NeMo container",
    ),
)
