# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The settings of a judge: as a configuration names them, and as a strategy receives them.

Input:  JudgeConfig(strategy="multiple-choice", constitution="rules.yaml", margin=0.2)
Output: the `Judge` that the strategy builds from JudgeSettings(constitution=Constitution(...), margin=0.2, seed=1234)
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from nemo_aligner_cai import registry
from nemo_aligner_cai.constitution import Constitution, load_constitution, packaged
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates, load_prompt_templates
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_text, require_file
from nemo_aligner_cai.judges.base import Judge
from nemo_aligner_cai.judges.few_shot import FewShots, read_few_shot_file
from nemo_aligner_cai.judges.pairs import Pairs
from nemo_aligner_cai.judges.prompts import with_judge_prompt
from nemo_aligner_cai.sections import Config

_YAML_OR_JSON = (".yaml", ".yml", ".json")


class JudgeOptions(Config):
    """Options of the strategies. Each strategy reads those that apply to it.

    Attributes:
        pairs: which candidates are compared; see `pairs.py`.
        both_orders: ask twice, the second time in reverse order, and keep the verdicts on which both orders agree.
        margin: minimum ``|2 p - 1|`` of a kept pair, where p is the probability that one candidate is better.
        logprobs: ask for log-probabilities; False asks for votes at once, for servers without log-probabilities.
        votes: answers sampled per question if there are no log-probabilities.
        structured: constrain the server's answer to a JSON schema.
        clamp: interval to which chain-of-thought probabilities are clamped.
        max_tokens: maximum length of an explanation or a reasoning, in tokens.
        ensemble: principles per pair in an ensemble.
        ensemble_of: the strategy with which an ensemble asks about each principle.
    """

    pairs: Pairs = "best-worst"
    both_orders: bool = True
    margin: float = Field(default=0.0, ge=0, lt=1)
    logprobs: bool = True
    votes: int = Field(default=5, ge=1)
    structured: bool = False
    clamp: tuple[Annotated[float, Field(ge=0, lt=0.5)], Annotated[float, Field(gt=0.5, le=1)]] = (0.4, 0.6)
    max_tokens: int = Field(default=1024, ge=1)
    ensemble: int = Field(default=4, ge=2)
    ensemble_of: str = "multiple-choice"


class JudgeSettings(JudgeOptions):
    """The options and file contents from which a strategy builds a judge.

    Attributes:
        constitution: the principles; None if `system` replaces them.
        system: the system message of a best-worst judge; None builds one from the constitution.
        templates: the texts of the questions.
        few_shots: examples shown before each question.
        seed: the run's seed.
    """

    constitution: Constitution | None
    system: str | None = None
    templates: PromptTemplates = PromptTemplates()
    few_shots: FewShots = FewShots()
    seed: int = 1234

    @property
    def required_constitution(self) -> Constitution:
        """The constitution, for strategies that ask about single principles.

        Raises:
            UsageError: there is no constitution, or none of its principles has a judge request.
        """
        if self.constitution is None:
            raise UsageError("this judge needs a constitution with principles (.yaml or .json), not a text file")
        if not self.constitution.for_judging:
            raise UsageError(f"the constitution {self.constitution.name!r} has no judge requests")
        return self.constitution


class JudgeConfig(JudgeOptions):
    """The judge as a configuration describes it: options, names of components, and files.

    Attributes:
        strategy: name of a component of kind "judges".
        constitution: for the strategy best-worst, also a text file, which is used as the system message.
        prompt: name of a component of kind "judge_prompts"; None uses the templates of the constitution's file.
        few_shots: a file of examples.
    """

    strategy: str = "best-worst"
    constitution: Path = Field(default_factory=packaged)
    prompt: str | None = None
    few_shots: Path | None = None


def build_judge(config: JudgeConfig, *, seed: int, constitution: Constitution | None = None) -> Judge:
    """Build a judge from its configuration. `constitution` replaces the configuration's file.

    Raises:
        UsageError: a file is missing or invalid, or the strategy rejects the settings.
    """
    templates, system = PromptTemplates(), None
    if constitution is None:
        path = require_file(config.constitution)
        templates = load_prompt_templates(path)
        if path.suffix in _YAML_OR_JSON or config.strategy != "best-worst":
            constitution = load_constitution(path)
        else:
            system = read_text(path)
            if not system.strip():
                raise UsageError(f"{path}: is empty; write the judge's instruction into it, with all principles")
    if config.prompt is not None:
        templates = with_judge_prompt(templates, registry.load("judge_prompts", config.prompt), config.prompt)
    settings = JudgeSettings(
        constitution=constitution,
        system=system,
        templates=templates,
        few_shots=read_few_shot_file(config.few_shots) if config.few_shots else FewShots(),
        seed=seed,
        **config.model_dump(include=set(JudgeOptions.model_fields)),
    )
    return registry.load("judges", config.strategy)(settings)
