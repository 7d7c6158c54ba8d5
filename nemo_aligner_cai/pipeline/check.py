# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of a run's configuration before its first step, hours before a later step would fail."""

from __future__ import annotations

from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.training.checks import model_file, model_kind
from nemo_aligner_cai.training.config import compose


def check(config: RunConfig, helpful_only: Path) -> None:
    """Validate the model, the sequence lengths and the trainers' overrides.

    Raises:
        UsageError: an invalid model, a sequence length beyond the model's, or an unknown trainer setting.
    """
    from omegaconf import OmegaConf

    named = OmegaConf.create({"models": {"helpful_only": str(helpful_only)}})
    model_kind.check(model_file.nemo_model(named, "models.helpful_only"), "models.helpful_only")
    window = model_file.model_config(helpful_only).get("encoder_seq_length")
    lengths = {
        "data.max_prompt_tokens": config.data.max_prompt_tokens,
        "sft.seq_length": config.sft.seq_length,
        "reward_model.seq_length": config.reward_model.seq_length,
        "ppo.seq_length": config.ppo.seq_length,
    }
    for key, length in lengths.items():
        if window is not None and length > window:
            raise UsageError(f"{key}={length} is longer than the context of {helpful_only}, which is {window} tokens")
    overrides = {
        "cai_sft": config.sft.overrides,
        "cai_reward_model": config.reward_model.overrides,
        "cai_ppo_critic": config.ppo.critic,
        "cai_ppo_actor": config.ppo.actor,
    }
    for name, given in overrides.items():
        compose(name, given)
