# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of each trainer: its module, its Hydra overrides and its GPUs.

Input:  a RunContext
Output: Trainer("sft", "cai_sft", ("model.restore_from_path=...", ...), gpus=(0, 1))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.pipeline.layout import DPO, MODEL, PPO, REWARD_MODEL, RL_CAI, SFT, SL_CAI
from nemo_aligner_cai.pipeline.steps.context import RunContext
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

    @property
    def path(self) -> str:
        """The module's full name, for ``python -m``."""
        return f"nemo_aligner_cai.training.{self.module}"

    @property
    def adds_adapters(self) -> bool:
        """True if it saves LoRA adapters instead of a whole model; raises UsageError for wrong overrides."""
        return select(compose(self.config, self.overrides), "model.peft.peft_scheme") not in (None, "none")


def sft(run: RunContext) -> Trainer:
    """SFT of the base model on step 2's rows."""
    config = run.config
    train, validation = (quoted(run.layout.file(SL_CAI, f"{split}.jsonl")) for split in ("train", "validation"))
    overrides = (
        f"model.restore_from_path={quoted(run.files.nemo('base'))}",
        f"model.data.train_ds.file_path={train}",
        f"model.data.validation_ds.file_path={validation}",
        f"model.data.train_ds.max_seq_length={config.sft.seq_length}",
        *_common(run, SFT),
        *config.sft.overrides,
    )
    return Trainer("sft", "cai_sft", overrides, config.sft.gpus)


def reward_model(run: RunContext) -> Trainer:
    """NeMo-Aligner's Bradley-Terry reward model on the blended comparisons."""
    section = run.config.reward_model
    assert section is not None, "a run by PPO has it"
    overrides = (
        *_from_sl_cai(run),
        f"model.data.data_prefix={_data_prefix(run, 'rm')}",
        f"model.data.seq_length={section.seq_length}",
        f"++model.encoder_seq_length={section.seq_length}",
        *_common(run, REWARD_MODEL),
        *section.overrides,
    )
    return Trainer("reward_model", "cai_reward_model", overrides, section.gpus)


def critic(run: RunContext, *, host: str, port: int) -> Trainer:
    """The server that is critic and reward model, at an address."""
    section = run.config.ppo
    assert section is not None, "a run by PPO has it"
    overrides = (
        f"pretrained_checkpoint.restore_from_path={quoted(run.layout.file(REWARD_MODEL, MODEL))}",
        f"trainer.ppo.host={host}",
        f"trainer.ppo.port={port}",
        f"++model.encoder_seq_length={section.seq_length}",
        f"++model.seed={run.config.seed}",
        f"exp_manager.explicit_log_dir={quoted(run.layout.file(PPO, 'critic'))}",
        *trainer_overrides(run.config.tracking, run.layout.folder, f"{PPO}-critic"),
        *section.critic,
    )
    return Trainer("critic_server", "cai_ppo_critic", overrides, section.critic_gpus)


def actor(run: RunContext, *, host: str, port: int) -> Trainer:
    """PPO of the SL-CAI model, with the critic at an address."""
    section = run.config.ppo
    assert section is not None, "a run by PPO has it"
    overrides = (
        *_from_sl_cai(run),
        f"model.data.data_prefix={_data_prefix(run, 'ppo')}",
        f"model.data.seq_length={section.seq_length}",
        f"++model.encoder_seq_length={section.seq_length}",
        f"remote_critic_rm.critic.ip={host}",
        f"remote_critic_rm.critic.port={port}",
        *_common(run, PPO),
        *section.actor,
    )
    return Trainer("ppo_actor", "cai_ppo_actor", overrides, section.actor_gpus)


def dpo(run: RunContext) -> Trainer:
    """Direct preference optimization of the SL-CAI model on the reward model's comparisons."""
    section = run.config.dpo
    assert section is not None, "a run by DPO has it"
    overrides = (
        "data_processor=auto",
        *_from_sl_cai(run),
        f"model.data.data_prefix={_data_prefix(run, 'rm')}",
        f"++model.data.seq_length={section.seq_length}",
        f"++model.encoder_seq_length={section.seq_length}",
        *_common(run, DPO),
        *section.overrides,
    )
    return Trainer("dpo", "cai_dpo", overrides, section.gpus)


def merge(base: Path, adapters: Path, output: Path) -> Trainer:
    """Merges LoRA adapters into the model that they were trained on."""
    paths = {"gpt_model_file": base, "adapter_file": adapters, "output": output}
    return Trainer("merge_lora", "cai_merge_lora", tuple(f"{key}={quoted(path)}" for key, path in paths.items()))


def _from_sl_cai(run: RunContext) -> tuple[str, ...]:
    return (f"pretrained_checkpoint.restore_from_path={quoted(run.sl_cai_model)}",)


def _common(run: RunContext, step: str) -> tuple[str, ...]:
    return (
        f"exp_manager.explicit_log_dir={quoted(run.layout.file(step, LOG_DIR))}",
        f"model.seed={run.config.seed}",
        *trainer_overrides(run.config.tracking, run.layout.folder, step),
    )


def _data_prefix(run: RunContext, name: str) -> str:
    train, test = (quoted(run.layout.file(RL_CAI, f"{name}_{split}.jsonl")) for split in ("train", "test"))
    return f"{{train: [{train}], validation: [{test}], test: [{test}]}}"
