# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: one YAML file.

Unknown keys and values of the wrong type are errors. Trainer settings are Hydra overrides, passed on unchanged: those
of ``cai train`` work here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from nemo_aligner_cai.data.soft_labels import SoftLabels
from nemo_aligner_cai.judges.pairs import Pairs
from nemo_aligner_cai.pipeline.executors.settings import Executor, LocalExecutor
from nemo_aligner_cai.sections import Section, load_config


class TinyData(Section):
    """Rows of each file of the tiny world; see ``tiny/data.py``."""

    red_team: int = Field(gt=0)
    helpful_sft: int = Field(gt=0)
    helpful_train: int = Field(gt=0)
    helpful_test: int = Field(gt=0)
    measure: int = Field(gt=0)
    measured_split: Literal["test", "validation"]


class Data(Section):
    """Input files. ``tiny`` generates them; a path replaces a generated file."""

    tiny: TinyData
    red_team: Path | None  # Anthropic's red-team attempts or HH, or a plain list of prompts
    red_team_turns: Literal["first", "all"]
    red_team_limit: int | None = Field(gt=0)
    max_prompt_tokens: int = Field(gt=0)  # longer red-team prompts are skipped and counted
    sl_share: float = Field(gt=0, lt=1)  # of the red-team prompts; RL-CAI gets the others


class Models(Section):
    """The initial model and the constitution; ``tiny`` is the packaged one."""

    helpful_only: Literal["tiny"] | Path
    constitution: Literal["tiny"] | Path


class Decoding(Section):
    """Sampling of a served model."""

    temperature: float = Field(ge=0)
    max_tokens: int = Field(gt=0)


class SlCai(Section):
    """Critique and revision."""

    decoding: Decoding
    batch_size: int = Field(gt=0)
    keep_unrevised: bool  # keep responses in which the critique found no fault
    num_revisions: int = Field(default=1, gt=0)
    few_shots: Path | None = None  # examples of response, critique and revision
    validation_share: float = Field(gt=0, lt=1)  # of the prompts, held out to validate SFT


class RlCai(Section):
    """Candidate responses and the judge."""

    decoding: Decoding
    batch_size: int = Field(gt=0)
    num_responses: int = Field(gt=1)
    judge: str  # a strategy of `cai components judges`
    pairs: Pairs  # which candidate responses are compared
    both_orders: bool = True  # judge twice, and keep verdicts on which both orders agree
    margin: float = Field(ge=0, lt=1)  # least |2 p - 1|, with p the judge's probability
    test_share: float = Field(gt=0, lt=1)  # of the prompts, held out to validate the reward model
    shuffle: bool = False  # each split's rows, before blending
    soft_labels: SoftLabels = "threshold"
    label_copies: int = Field(default=10, gt=1)  # of each pair, with soft_labels=repeat
    formats: tuple[str, ...] = ()  # further formats of the pairs, such as dpo


class Training(Section):
    """One trainer. Rows longer than `seq_length` tokens are filtered out; `overrides` are Hydra's."""

    seq_length: int = Field(gt=1)
    overrides: tuple[str, ...]


class Ppo(Section):
    """The two processes of PPO."""

    seq_length: int = Field(gt=1)
    critic: tuple[str, ...]
    actor: tuple[str, ...]


class Measure(Section):
    """Generation for the final measurement."""

    max_tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)


class RunConfig(Section):
    """The configuration of a run; ``tiny/quickstart.yaml`` explains each value."""

    seed: int = Field(ge=0, lt=1 << 32)  # the range of NumPy's seeds
    data: Data
    models: Models
    sl_cai: SlCai
    sft: Training
    rl_cai: RlCai
    reward_model: Training
    ppo: Ppo
    measure: Measure
    executor: Executor = LocalExecutor()


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Load a run's configuration; see `load_config`."""
    return load_config(path, overrides, RunConfig)
