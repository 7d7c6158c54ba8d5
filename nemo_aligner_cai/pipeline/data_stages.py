# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The configurations of the two data stages of a run."""

from __future__ import annotations

from pathlib import Path

from nemo_aligner_cai.data.split import parse_splits
from nemo_aligner_cai.judges.settings import JudgeConfig
from nemo_aligner_cai.models.base import Sampling
from nemo_aligner_cai.pipeline.config import Decoding, RunConfig
from nemo_aligner_cai.stages.rl_cai import RlCaiConfig
from nemo_aligner_cai.stages.rl_outputs import KINDS, BlendFiles, Kind, PreferenceFiles, RlOutputs, SplitFiles
from nemo_aligner_cai.stages.settings import PromptSource, RunSettings
from nemo_aligner_cai.stages.sft_files import SftFiles, SlOutputs
from nemo_aligner_cai.stages.sl_cai import SlCaiConfig


def sl_cai_config(config: RunConfig, constitution: Path, tokenizer: Path, data: Path, folder: Path) -> SlCaiConfig:
    """The SL-CAI stage of a run.

    Args:
        config: the run's.
        constitution: its YAML file.
        tokenizer: the model's tokenizer file.
        data: the folder of prompts and helpfulness data.
        folder: the stage's output folder.
    """
    own = config.sl_cai
    return SlCaiConfig(
        prompts=PromptSource(path=str(data / "sl_prompts.jsonl"), turns="all"),
        constitution=constitution,
        few_shots=own.few_shots,
        sampling=_sampling(own.decoding),
        num_revisions=own.num_revisions,
        keep_unrevised=own.keep_unrevised,
        files=SftFiles(
            helpful=str(data / "helpful_sft.jsonl"),
            own="first",
            seq_length=config.sft.seq_length,
            tokenizer=tokenizer,
            validation_share=own.validation_share,
        ),
        outputs=SlOutputs(
            train=folder / "train.jsonl",
            validation=folder / "validation.jsonl",
            revisions=folder / "revisions.jsonl",
            journal=folder / "revisions.journal.jsonl",
            samples=folder / "sl_cai.jsonl",
        ),
        run=_run(config),
    )


def rl_cai_config(config: RunConfig, constitution: Path, tokenizer: Path, data: Path, folder: Path) -> RlCaiConfig:
    """The RL-CAI stage of a run; arguments as for `sl_cai_config`."""
    own = config.rl_cai
    shares = {"train": str(round(1 - own.test_share, 6)), "test": str(own.test_share)}
    return RlCaiConfig(
        prompts=PromptSource(path=str(data / "rl_prompts.jsonl"), turns="all"),
        sampling=_sampling(own.decoding),
        temperatures=(own.decoding.temperature,) * own.num_responses,
        judge=JudgeConfig(
            strategy=own.judge,
            constitution=constitution,
            pairs=own.pairs,
            both_orders=own.both_orders,
            margin=own.margin,
        ),
        files=PreferenceFiles(
            splits=parse_splits(shares),
            shuffle=own.shuffle,
            # PPO also trains on prompts without a comparison.
            ppo_prompts="all",
            soft_labels=own.soft_labels,
            label_copies=own.label_copies,
            formats=own.formats,
            metadata=True,
            blend=BlendFiles(name="helpful", files={split: _helpful(split, data) for split in shares}),
            own="first",
            rm_seq_length=config.reward_model.seq_length,
            ppo_seq_length=config.ppo.seq_length,
            tokenizer=tokenizer,
        ),
        outputs=RlOutputs(
            comparisons=folder / "comparisons.jsonl",
            journal=folder / "comparisons.journal.jsonl",
            splits={split: _split_files(split, own.formats, folder) for split in shares},
        ),
        run=_run(config),
    )


def _helpful(split: str, data: Path) -> dict[Kind, tuple[str, ...]]:
    return {kind: (str(data / f"helpful_{split}_{kind}_with_chat_prompt.jsonl"),) for kind in KINDS}


def _split_files(split: str, formats: tuple[str, ...], folder: Path) -> SplitFiles:
    return SplitFiles(
        own={
            "prompts": folder / f"cai_{split}_prompts.jsonl",
            "comparisons": folder / f"cai_{split}_comparisons.jsonl",
        },
        blended={"prompts": folder / f"ppo_{split}.jsonl", "comparisons": folder / f"rm_{split}.jsonl"},
        formats={name: folder / f"cai_{split}_comparisons.{name}.jsonl" for name in formats},
    )


def _sampling(decoding: Decoding) -> Sampling:
    return Sampling(temperature=decoding.temperature, max_tokens=decoding.max_tokens)


def _run(config: RunConfig) -> RunSettings:
    # The clients of a run's servers are named by `StepCache.identity`; the name that a server reports is not needed.
    return RunSettings(seed=config.seed, resume=True, progress=True, ask_for_models=False)
