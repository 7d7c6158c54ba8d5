# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The names of a run's steps, and of the files that later steps read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DATA, SL_CAI, SFT, RL_CAI, REWARD_MODEL, PPO, MEASURE = (
    "1_data",
    "2_sl_cai",
    "3_sft",
    "4_rl_cai",
    "5_reward_model",
    "6_ppo",
    "7_measure",
)
"""The steps of a run by PPO with the tiny assistant."""
DPO = "5_dpo"
"""Takes the place of reward model and PPO."""
ANSWERS = "7_answers"
"""Only of runs with the section `answers`."""
ANSWERS_FILE = "answers.jsonl"
EVALUATE = "8_evaluate"
"""The last step of a run with prompt sets and graders."""
MODEL = "model.nemo"
ADAPTERS = "adapters.nemo"
HF = "hf"
"""A folder in Hugging Face's layout in a step's folder."""

SL_PROMPTS, RL_PROMPTS, HELPFUL_SFT, MEASURED = (
    "sl_prompts.jsonl",
    "rl_prompts.jsonl",
    "helpful_sft.jsonl",
    "measure.jsonl",
)
HELPFUL_PREFERENCES = tuple(
    f"helpful_{split}_{what}_with_chat_prompt.jsonl"
    for split in ("train", "test")
    for what in ("prompts", "comparisons")
)


@dataclass(frozen=True)
class Layout:
    """Paths in a run's folder."""

    folder: Path

    def file(self, step: str, name: str) -> Path:
        """A file of a step."""
        return self.folder / step / name
