# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a whole run: one YAML file, every key checked before anything starts.

A key that is not here is an error, and so is a value of the wrong type.  Trainer settings are Hydra overrides, passed
on as they are, so that a line that works with ``cai train`` works here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from nemo_aligner_cai.data.soft_labels import SoftLabels
from nemo_aligner_cai.judges.pairs import Pairs
from nemo_aligner_cai.sections import Section, load_config


class TinyData(Section):
    """Rows of each file that the tiny world makes, see ``tiny/data.py``."""

    red_team: int = Field(gt=0)
    helpful_sft: int = Field(gt=0)
    helpful_train: int = Field(gt=0)
    helpful_test: int = Field(gt=0)
    measure: int = Field(gt=0)
    measured_split: Literal["test", "validation"]


class Data(Section):
    """Where the inputs come from.  ``tiny`` makes them all; a path given here takes the place of a made one."""

    tiny: TinyData
    red_team: Path | None  # Anthropic's red-team attempts or HH, or a plain list of prompts
    red_team_turns: Literal["first", "all"]
    red_team_limit: int | None = Field(gt=0)
    max_prompt_tokens: int = Field(gt=0)  # longer red-team prompts are left out, counted
    sl_share: float = Field(gt=0, lt=1)  # of the red-team prompts for SL-CAI, the others are for RL-CAI


class Models(Section):
    """The model that the run starts from; ``tiny`` is the one that comes with the package."""

    helpful_only: Literal["tiny"] | Path
    constitution: Literal["tiny"] | Path


class Decoding(Section):
    """How replies are drawn from a served model."""

    temperature: float = Field(ge=0)
    max_tokens: int = Field(gt=0)


class SlCai(Section):
    """Critique and revision."""

    decoding: Decoding
    batch_size: int = Field(gt=0)
    keep_unrevised: bool  # keep answers that the critique found nothing wrong with
    num_revisions: int = Field(default=1, gt=0)
    few_shots: Path | None = None  # examples of answer, critique and revision
    validation_share: float = Field(gt=0, lt=1)  # of the prompts, held out to validate SFT


class RlCai(Section):
    """Candidate responses and the judge."""

    decoding: Decoding
    batch_size: int = Field(gt=0)
    num_responses: int = Field(gt=1)
    judge: str  # a strategy of `cai components judges`
    pairs: Pairs  # which candidate responses are compared
    both_orders: bool = True  # ask twice, and keep what both orders agree on
    margin: float = Field(ge=0, lt=1)  # least distance of the judge's probability from one half, doubled
    test_share: float = Field(gt=0, lt=1)  # of the prompts, held out to validate the reward model
    shuffle: bool = False  # each split's own rows, before they are blended
    soft_labels: SoftLabels = "threshold"
    label_copies: int = Field(default=10, gt=1)  # of each pair, with soft_labels=repeat
    formats: tuple[str, ...] = ()  # other formats to write the pairs in, such as dpo


class Training(Section):
    """One trainer: its sequence length in tokens, to which its data are filtered, and Hydra overrides."""

    seq_length: int = Field(gt=1)
    overrides: tuple[str, ...]


class Ppo(Section):
    """The two processes of PPO."""

    seq_length: int = Field(gt=1)
    critic: tuple[str, ...]
    actor: tuple[str, ...]


class Measure(Section):
    """What is asked of the three models at the end."""

    max_tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)


class RunConfig(Section):
    """All of a run; see ``tiny/quickstart.yaml`` for the meaning of each value."""

    seed: int = Field(ge=0, lt=1 << 32)  # what NumPy's generator takes
    data: Data
    models: Models
    sl_cai: SlCai
    sft: Training
    rl_cai: RlCai
    reward_model: Training
    ppo: Ppo
    measure: Measure


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A run's configuration, see `load_config`."""
    return load_config(path, overrides, RunConfig)
