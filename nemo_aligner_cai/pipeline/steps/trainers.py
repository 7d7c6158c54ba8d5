# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of each trainer: its module, its Hydra overrides and its GPUs.

Input:  a RunConfig and the run's layout
Output: Trainer("sft", "cai_sft", ("model.restore_from_path=...", ...), gpus=(0, 1))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import DPO, MODEL, PPO, REWARD_MODEL, RL_CAI, SFT, SL_CAI, Layout
from nemo_aligner_cai.pipeline.tracking import trainer_overrides
from nemo_aligner_cai.training.config import compose, quoted, select

LOG_DIR = "train"
"""A trainer's log folder, in its step's folder."""


@dataclass(frozen=True)
class Trainer:
    """A training process.

    Attributes:
        module: of `nemo_aligner_cai.training`.
        config: the name of its Hydra configuration.
        overrides: its command line.
        gpus: the numbers of the GPUs that it may use; empty for all.
    """

    module: str
    config: str
    overrides: tuple[str, ...]
    gpus: tuple[int, ...] = ()


def adds_adapters(config: str, overrides: Sequence[str]) -> bool:
    """True if a trainer saves LoRA adapters instead of a whole model; raises UsageError for wrong overrides."""
    return select(compose(config, overrides), "model.peft.peft_scheme") not in (None, "none")


def sft(config: RunConfig, layout: Layout, base: Path) -> Trainer:
    """SFT of the base model on step 2's rows."""
    train, validation = (quoted(layout.file(SL_CAI, f"{split}.jsonl")) for split in ("train", "validation"))
    overrides = (
        f"model.restore_from_path={quoted(base)}",
        f"model.data.train_ds.file_path={train}",
        f"model.data.validation_ds.file_path={validation}",
        f"model.data.train_ds.max_seq_length={config.sft.seq_length}",
        *_common(config, layout, SFT),
        *config.sft.overrides,
    )
    return Trainer("sft", "cai_sft", overrides, config.sft.gpus)


def reward_model(config: RunConfig, layout: Layout) -> Trainer:
    """NeMo-Aligner's Bradley-Terry reward model on the blended comparisons."""
    assert config.reward_model is not None, "a run by PPO has it"
    section = config.reward_model
    overrides = (
        *_from_sl_cai(layout),
        f"model.data.data_prefix={_data_prefix(layout, 'rm')}",
        f"model.data.seq_length={section.seq_length}",
        f"++model.encoder_seq_length={section.seq_length}",
        *_common(config, layout, REWARD_MODEL),
        *section.overrides,
    )
    return Trainer("reward_model", "cai_reward_model", overrides, section.gpus)


def critic(config: RunConfig, layout: Layout, *, host: str, port: int) -> Trainer:
    """The server that is critic and reward model, at an address."""
    assert config.ppo is not None, "a run by PPO has it"
    overrides = (
        f"pretrained_checkpoint.restore_from_path={quoted(layout.file(REWARD_MODEL, MODEL))}",
        f"trainer.ppo.host={host}",
        f"trainer.ppo.port={port}",
        f"++model.encoder_seq_length={config.ppo.seq_length}",
        f"++model.seed={config.seed}",
        f"exp_manager.explicit_log_dir={quoted(layout.file(PPO, 'critic'))}",
        *trainer_overrides(config.tracking, layout.folder, f"{PPO}-critic"),
        *config.ppo.critic,
    )
    return Trainer("critic_server", "cai_ppo_critic", overrides, config.ppo.critic_gpus)


def actor(config: RunConfig, layout: Layout, *, host: str, port: int) -> Trainer:
    """PPO of the SL-CAI model, with the critic at an address."""
    assert config.ppo is not None, "a run by PPO has it"
    overrides = (
        *_from_sl_cai(layout),
        f"model.data.data_prefix={_data_prefix(layout, 'ppo')}",
        f"model.data.seq_length={config.ppo.seq_length}",
        f"++model.encoder_seq_length={config.ppo.seq_length}",
        f"remote_critic_rm.critic.ip={host}",
        f"remote_critic_rm.critic.port={port}",
        *_common(config, layout, PPO),
        *config.ppo.actor,
    )
    return Trainer("ppo_actor", "cai_ppo_actor", overrides, config.ppo.actor_gpus)


def dpo(config: RunConfig, layout: Layout) -> Trainer:
    """Direct preference optimization of the SL-CAI model on the reward model's comparisons."""
    assert config.dpo is not None, "a run by DPO has it"
    overrides = (
        "data_processor=auto",
        *_from_sl_cai(layout),
        f"model.data.data_prefix={_data_prefix(layout, 'rm')}",
        f"++model.data.seq_length={config.dpo.seq_length}",
        f"++model.encoder_seq_length={config.dpo.seq_length}",
        *_common(config, layout, DPO),
        *config.dpo.overrides,
    )
    return Trainer("dpo", "cai_dpo", overrides, config.dpo.gpus)


def merge(base: Path, adapters: Path, output: Path) -> Trainer:
    """Merges LoRA adapters into the model that they were trained on."""
    paths = {"gpt_model_file": base, "adapter_file": adapters, "output": output}
    return Trainer("merge_lora", "cai_merge_lora", tuple(f"{key}={quoted(path)}" for key, path in paths.items()))


def _from_sl_cai(layout: Layout) -> tuple[str, ...]:
    return (f"pretrained_checkpoint.restore_from_path={quoted(layout.file(SFT, MODEL))}",)


def _common(config: RunConfig, layout: Layout, step: str) -> tuple[str, ...]:
    return (
        f"exp_manager.explicit_log_dir={quoted(layout.file(step, LOG_DIR))}",
        f"model.seed={config.seed}",
        *trainer_overrides(config.tracking, layout.folder, step),
    )


def _data_prefix(layout: Layout, name: str) -> str:
    train, test = (quoted(layout.file(RL_CAI, f"{name}_{split}.jsonl")) for split in ("train", "test"))
    return f"{{train: [{train}], validation: [{test}], test: [{test}]}}"
