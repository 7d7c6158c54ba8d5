# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Replaces settings that need a GPU on a machine without CUDA, and logs each change.

The tutorial's commands contain GPU settings (`model.megatron_amp_O2=True`, `++model.optim.bucket_cap_mb=200`,
`trainer.precision=bf16`) and must also run on a CPU. The `hardware=cpu` configurations already have CPU values: a
change comes from the user's overrides or from the checkpoint.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from nemo_aligner_cai.training.checks.model_needs import drop_sliding_window

if TYPE_CHECKING:
    from omegaconf import DictConfig

_log = logging.getLogger(__name__)

#: key -> value on a CPU. Missing keys are not added.
CPU_VALUES: dict[str, Any] = {
    "trainer.accelerator": "cpu",
    "trainer.precision": 32,
    "trainer.num_nodes": 1,
    "model.precision": 32,
    "model.megatron_amp_O2": False,
    "megatron_amp_O2": False,
    "model.transformer_engine": False,
    "model.sequence_parallel": False,
    "model.use_flash_attention": False,
    "model.persist_layer_norm": False,
    "model.grad_div_ar_fusion": False,
    "model.gradient_accumulation_fusion": False,
    "model.bias_activation_fusion": False,
    "model.bias_dropout_add_fusion": False,
    "model.masked_softmax_fusion": False,
    "model.apply_rope_fusion": False,
    "model.gradient_as_bucket_view": False,
    "model.optim.name": "adamw",
    "model.force_head_dtype": "float32",
    "model.offload_adam_states": False,
    "model.ppo.offload_adam_states": False,
    "model.ppo.trt_llm.enable": False,
    "trainer.ppo.trt_llm.enable": False,
}

#: Arguments of Apex's distributed Adam that torch's AdamW lacks -> value in the stage configs, None if absent.
APEX_ARGUMENTS: dict[str, Any] = {
    "bucket_cap_mb": 200,
    "overlap_grad_sync": False,
    "overlap_param_sync": False,
    "contiguous_grad_buffer": True,
    "contiguous_param_buffer": None,
    "grad_sync_dtype": None,
}

#: Lightning's and NeMo's names for single precision.
_FULL_PRECISION = (32, "32", "32-true")


def adapt_to_cpu(cfg: DictConfig) -> list[str]:
    """Replace settings that need a GPU, in place.

    Returns:
        One line per changed key, as logged.
    """
    from omegaconf import OmegaConf, open_dict

    changes: list[str] = []
    with open_dict(cfg):
        for key, value in CPU_VALUES.items():
            old = OmegaConf.select(cfg, key)
            if old is None or old == value or (key.endswith("precision") and old in _FULL_PRECISION):
                continue
            OmegaConf.update(cfg, key, value)
            changes.append(f"no GPU here: {key}={old} replaced by {value}")
        optim = OmegaConf.select(cfg, "model.optim") or {}
        for name, default in APEX_ARGUMENTS.items():
            # The stage configs' own value is not logged: no user set it.
            if name in optim and (value := optim.pop(name)) != default:
                changes.append(f"no GPU here: model.optim.{name}={value} dropped (an argument of Apex's optimizer)")
        if "model" in cfg:
            if line := drop_sliding_window(cfg.model):
                changes.append(line)
            # Otherwise the weights are created on the current GPU.
            OmegaConf.update(cfg, "model.use_cpu_initialization", True)
    for line in changes:
        _log.warning(line)
    return changes
