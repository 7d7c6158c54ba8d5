# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The command line of each trainer: its module, its Hydra overrides and its GPUs.

Input:  a RunContext
Output: Trainer("sft", "cai_sft", ("model.restore_from_path=...", ...), gpus=(0, 1))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.pipeline.layout import MODEL, PPO, REWARD_MODEL, RL_CAI, SL_CAI
from nemo_aligner_cai.pipeline.steps.context import RunContext
from nemo_aligner_cai.pipeline.tracking import trainer_overrides
from nemo_aligner_cai.training.config import adds_adapters, compose, quoted

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
        return adds_adapters(compose(self.config, self.overrides))


def sft(run: RunContext) -> Trainer:
    """SFT of the base model on step 2's rows."""
    train, validation = (quoted(run.layout.file(SL_CAI, f"{split}.jsonl")) for split in ("train", "validation"))
    own = (
        f"model.restore_from_path={quoted(run.files.nemo('base'))}",
        f"model.data.train_ds.file_path={train}",
        f"model.data.validation_ds.file_path={validation}",
        f"model.data.train_ds.max_seq_length={run.config.sft.seq_length}",
    )
    return _trainer(run, "sft", "sft", own)


def reward_model(run: RunContext) -> Trainer:
    """NeMo-Aligner's Bradley-Terry reward model on the blended comparisons."""
    return _after_sft(run, "reward_model", "reward_model", "rm")


def dpo(run: RunContext) -> Trainer:
    """Direct preference optimization of the SL-CAI model on the reward model's comparisons."""
    return _after_sft(run, "dpo", "dpo", "rm", "data_processor=auto")


def actor(run: RunContext, *, host: str, port: int) -> Trainer:
    """PPO of the SL-CAI model, with the critic at an address."""
    address = (f"remote_critic_rm.critic.ip={host}", f"remote_critic_rm.critic.port={port}")
    return _after_sft(run, "ppo.actor", "ppo_actor", "ppo", *address)


def critic(run: RunContext, *, host: str, port: int) -> Trainer:
    """The server that is critic and reward model, at an address."""
    settings = run.config.trainers["ppo.critic"]
    overrides = (
        f"pretrained_checkpoint.restore_from_path={quoted(run.layout.file(REWARD_MODEL, MODEL))}",
        f"trainer.ppo.host={host}",
        f"trainer.ppo.port={port}",
        f"++model.encoder_seq_length={settings.seq_length}",
        f"++model.seed={run.config.seed}",
        f"exp_manager.explicit_log_dir={quoted(run.layout.file(PPO, 'critic'))}",
        *trainer_overrides(run.config.tracking, run.layout.folder, f"{PPO}-critic"),
        *settings.overrides,
    )
    return Trainer("critic_server", settings.config, overrides, settings.gpus)


def merge(base: Path, adapters: Path, output: Path) -> Trainer:
    """Merges LoRA adapters into the model that they were trained on."""
    paths = {"gpt_model_file": base, "adapter_file": adapters, "output": output}
    return Trainer("merge_lora", "cai_merge_lora", tuple(f"{key}={quoted(path)}" for key, path in paths.items()))


def _after_sft(run: RunContext, key: str, module: str, rows: str, *more: str) -> Trainer:
    """A trainer that starts from the SL-CAI model, on the files of step 4 whose names start with `rows`."""
    length = run.config.trainers[key].seq_length
    train, test = (quoted(run.layout.file(RL_CAI, f"{rows}_{split}.jsonl")) for split in ("train", "test"))
    own = (
        f"pretrained_checkpoint.restore_from_path={quoted(run.sl_cai_model)}",
        f"model.data.data_prefix={{train: [{train}], validation: [{test}], test: [{test}]}}",
        f"++model.data.seq_length={length}",
        f"++model.encoder_seq_length={length}",
        *more,
    )
    return _trainer(run, key, module, own)


def _trainer(run: RunContext, key: str, module: str, own: tuple[str, ...]) -> Trainer:
    settings = run.config.trainers[key]
    overrides = (
        *own,
        f"exp_manager.explicit_log_dir={quoted(run.layout.file(settings.step, LOG_DIR))}",
        f"model.seed={run.config.seed}",
        *trainer_overrides(run.config.tracking, run.layout.folder, settings.step),
        *settings.overrides,
    )
    return Trainer(module, settings.config, overrides, settings.gpus)
