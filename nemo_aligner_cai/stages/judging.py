# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The section that describes a judge, and the judge that it stands for."""

from pathlib import Path

from pydantic import Field

from nemo_aligner_cai import registry
from nemo_aligner_cai.constitution import Constitution, load_constitution, packaged
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates, load_prompt_templates
from nemo_aligner_cai.files import read_text, require_file
from nemo_aligner_cai.judges.base import Judge
from nemo_aligner_cai.judges.few_shot import FewShots, read_judge_shots
from nemo_aligner_cai.judges.pairs import Pairs
from nemo_aligner_cai.judges.prompts import with_judge_prompt
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.sections import Config

_YAML_OR_JSON = (".yaml", ".yml", ".json")


class JudgeConfig(Config):
    """How candidates are judged; see `generate.judges.settings.JudgeSettings`.

    `strategy` and `prompt` are names of components. For the strategy best-worst, `constitution` may be a text file,
    which is the judge's system prompt. `few_shots` is a file of examples.
    """

    strategy: str = "best-worst"
    constitution: Path = Field(default_factory=packaged)
    prompt: str | None = None
    pairs: Pairs = "best-worst"
    both_orders: bool = True
    margin: float = 0.0
    logprobs: bool = True
    votes: int = 5
    structured: bool = False
    few_shots: Path | None = None
    clamp: tuple[float, float] = (0.4, 0.6)
    max_tokens: int = 1024
    ensemble: int = 4
    ensemble_of: str = "multiple-choice"


def build_judge(config: JudgeConfig, *, seed: int, constitution: Constitution | None = None) -> Judge:
    """The judge that a section describes.

    Args:
        config: the section.
        seed: the run's.
        constitution: takes the place of the section's file.

    Raises:
        UsageError: a file is missing, or the settings do not fit together.
    """
    wording, system = PromptTemplates(), None
    if constitution is None:
        path = require_file(config.constitution)
        wording = load_prompt_templates(path)
        if path.suffix in _YAML_OR_JSON or config.strategy != "best-worst":
            constitution = load_constitution(path)
        else:
            system = read_text(path)
    if config.prompt is not None:
        wording = with_judge_prompt(wording, registry.load("judge_prompts", config.prompt), config.prompt)
    settings = JudgeSettings(
        constitution,
        wording,
        seed=seed,
        system=system,
        shots=read_judge_shots(config.few_shots) if config.few_shots else FewShots(),
        pairs=config.pairs,
        both_orders=config.both_orders,
        margin=config.margin,
        logprobs=config.logprobs,
        votes=config.votes,
        structured=config.structured,
        clamp=config.clamp,
        max_tokens=config.max_tokens,
        ensemble=config.ensemble,
        ensemble_of=config.ensemble_of,
    )
    return registry.load("judges", config.strategy)(settings)
