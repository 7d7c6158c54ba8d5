# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The configurations of the two data stages of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_aligner_cai.data.split import parse_splits
from nemo_aligner_cai.judges.settings import JudgeConfig, JudgeOptions
from nemo_aligner_cai.pipeline.config import RlCai, RunConfig, SlCai
from nemo_aligner_cai.pipeline.layout import HELPFUL_SFT, RL_PROMPTS, SL_PROMPTS
from nemo_aligner_cai.sections import Config
from nemo_aligner_cai.stages.rl_cai import RlCaiConfig
from nemo_aligner_cai.stages.rl_outputs import (
    KINDS,
    BlendFiles,
    Kind,
    PreferenceFiles,
    PreferenceSettings,
    RlOutputs,
    SplitFiles,
)
from nemo_aligner_cai.stages.settings import PromptSource, RunSettings
from nemo_aligner_cai.stages.sft_files import SftFiles, SftSettings, SlOutputs
from nemo_aligner_cai.stages.sl_cai import RevisionSettings, SlCaiConfig


@dataclass(frozen=True)
class StageInputs:
    """The files that both stages read.

    Attributes:
        constitution: its YAML file.
        tokenizer: of the model that is trained; None before it is downloaded, for a check without a length filter.
        data: the folder of prompts and helpfulness data.
    """

    constitution: Path
    tokenizer: Path | None
    data: Path


def sl_cai_config(config: RunConfig, inputs: StageInputs, folder: Path) -> SlCaiConfig:
    """The SL-CAI stage of a run, with its outputs in a folder."""
    own, red_team = config.sl_cai, config.data.red_team
    # The prompts have it already; the stage adds it to the helpful conversations.
    message = red_team.system_message if red_team else ""
    return SlCaiConfig(
        prompts=PromptSource(path=str(inputs.data / SL_PROMPTS), turns="all", system_message=message),
        constitution=inputs.constitution,
        sampling=own.decoding,
        files=SftFiles(
            helpful=str(inputs.data / HELPFUL_SFT),
            seq_length=config.sft.seq_length if inputs.tokenizer else None,
            tokenizer=inputs.tokenizer,
            **_shared(own, SftSettings),
        ),
        outputs=SlOutputs(
            train=folder / "train.jsonl",
            validation=folder / "validation.jsonl",
            revisions=folder / "revisions.jsonl",
            journal=folder / "revisions.journal.jsonl",
            samples=folder / "sl_cai.jsonl",
        ),
        run=_run(config, own.max_dropped),
        **_shared(own, RevisionSettings),
    )


def rl_cai_config(config: RunConfig, inputs: StageInputs, folder: Path) -> RlCaiConfig:
    """The RL-CAI stage of a run, with its outputs in a folder."""
    own, data = config.rl_cai, inputs.data
    lengths = {
        "rm_seq_length": config.pairs_seq_length,
        "ppo_seq_length": config.ppo.seq_length if config.ppo else None,
    }
    shares = {"train": str(round(1 - own.test_share, 6)), "test": str(own.test_share)}
    return RlCaiConfig(
        prompts=PromptSource(path=str(data / RL_PROMPTS), turns="all"),
        sampling=own.decoding,
        temperatures=own.candidate_temperatures,
        judge=JudgeConfig(
            strategy=own.judge,
            constitution=inputs.constitution,
            prompt=own.judge_prompt,
            few_shots=own.judge_few_shots,
            **judge_options(own),
        ),
        files=PreferenceFiles(
            splits=parse_splits(shares),
            blend=BlendFiles(name="helpful", files={split: _helpful(split, data) for split in shares}),
            tokenizer=inputs.tokenizer,
            **(lengths if inputs.tokenizer else {}),
            **_shared(own, PreferenceSettings),
        ),
        outputs=RlOutputs(
            comparisons=folder / "comparisons.jsonl",
            journal=folder / "comparisons.journal.jsonl",
            splits={split: _split_files(split, own.formats, folder) for split in shares},
        ),
        run=_run(config, own.max_dropped),
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


def judge_options(section: RlCai) -> dict[str, Any]:
    """The judge's options."""
    return _shared(section, JudgeOptions)


def _shared(section: SlCai | RlCai, settings: type[Config]) -> dict[str, Any]:
    """The fields of a section of the run that a configuration of the stages has too."""
    return {name: getattr(section, name) for name in settings.model_fields}


def _run(config: RunConfig, max_dropped: float) -> RunSettings:
    # The run's clients name their models by hash or identity; the name that a server reports is not needed.
    return RunSettings(seed=config.seed, resume=True, progress=True, ask_for_models=False, max_dropped=max_dropped)
