# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: one YAML file, which `cai run` and `cai plan` read.

Input:  seed, models, serve, data, sl_cai, sft, rl_cai, reward_model and ppo (or dpo), measure, plan;
        tiny/quickstart.yaml explains them for the tiny assistant, examples/nlp/cai/mistral_7b.yaml for a real model
Output: a frozen RunConfig

Unknown keys and values of the wrong type are errors. Trainer settings are Hydra overrides, passed on unchanged: those
of ``cai train`` work here. The data stages have the settings of `stages`, under the same names.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from pydantic import Field, field_validator, model_validator

from nemo_aligner_cai.console.secrets import first_secret
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files.reading import is_object
from nemo_aligner_cai.judges.settings import JudgeOptions
from nemo_aligner_cai.pipeline.executors.settings import Executor, LocalExecutor
from nemo_aligner_cai.pipeline.layout import DPO, PPO, REWARD_MODEL, SFT
from nemo_aligner_cai.pipeline.sections.answers import Answers
from nemo_aligner_cai.pipeline.sections.data import Data
from nemo_aligner_cai.pipeline.sections.decoding import Decoding
from nemo_aligner_cai.pipeline.sections.evaluate import Evaluate
from nemo_aligner_cai.pipeline.sections.models import Models
from nemo_aligner_cai.pipeline.sections.serve import Serve
from nemo_aligner_cai.planning.config import Assumptions
from nemo_aligner_cai.registry import BUILTIN, components
from nemo_aligner_cai.sections import Config, Section, choices, load_config, meant
from nemo_aligner_cai.stages.rl_cai import UPSTREAM_TEMPERATURES
from nemo_aligner_cai.stages.rl_outputs import PreferenceSettings
from nemo_aligner_cai.stages.settings import BlendPosition
from nemo_aligner_cai.stages.sft_files import SftSettings
from nemo_aligner_cai.stages.sl_cai import RevisionSettings
from nemo_aligner_cai.training.config import chooses_hardware, group_options, known_keys

_LISTS = {
    "sft": "sft.overrides",
    "reward_model": "reward_model.overrides",
    "dpo": "dpo.overrides",
    "ppo.actor": "ppo.actor",
    "ppo.critic": "ppo.critic",
}
"""The sections of the trainers, and the lists of their Hydra overrides."""
_TEXTS: dict[str, Any] = {
    "answers": {"prompts", "system_message"},
    "data": {"red_team": {"system_message"}},
}
"""Texts for the models, which may speak of passwords."""


class _DataStage(Section):
    """The settings that both data stages share.

    Attributes:
        decoding: sampling of the replies; the keys of `models.base.Sampling`.
        batch_size: conversations per request to NeMo's server.
        max_dropped: the share of the prompts that faults may drop.
    """

    decoding: Decoding
    batch_size: int = Field(default=64, gt=0)
    max_dropped: float = Field(default=0.01, ge=0, le=1)


class SlCai(RevisionSettings, SftSettings, _DataStage):
    """Critique and revision: the settings of `stages.SlCaiConfig` that name no files of the run.

    Attributes:
        learn_earlier_replies: use prompts that have earlier replies, which SFT learns like the revision; false skips
            and counts them. None uses them in the tiny world's own prompts, where they are greetings, and skips them
            in `data.red_team`.
    """

    learn_earlier_replies: bool | None = None
    own: BlendPosition = "first"
    validation_share: float | None = Field(gt=0, lt=1)  # of the prompts, held out to validate SFT

    @model_validator(mode="after")
    def _validates(self) -> SlCai:
        if self.validation_share is None:
            raise ValueError("validation_share: SFT needs held-out rows; give a share such as 0.05")
        return self


class RlCai(JudgeOptions, PreferenceSettings, _DataStage):
    """Candidate responses and the judge: the settings of `stages.RlCaiConfig` that name no files of the run.

    Attributes:
        num_responses: candidates, all with the temperature of `decoding`.
        temperatures: instead, one for each candidate; by default those of upstream's script.
        judge: the strategy, one of `cai components judges`.
        judge_prompt: one of `cai components judge_prompts`; None for the templates of the constitution's file.
        judge_few_shots: a file with examples for the judge.
        test_share: of the prompts, held out to validate the reward model.
    """

    num_responses: int | None = Field(default=None, gt=1)
    temperatures: tuple[float, ...] | None = Field(default=None, min_length=2)
    judge: str = "best-worst"
    judge_prompt: str | None = None
    judge_few_shots: Path | None = None
    test_share: float = Field(gt=0, lt=1)
    shuffle: bool = False  # of each split, before blending, which shuffles all rows
    # PPO also trains on prompts without a comparison.
    ppo_prompts: Literal["with-pairs", "all"] = "all"
    metadata: bool = True
    own: BlendPosition = "first"

    @model_validator(mode="after")
    def _one_count(self) -> RlCai:
        if self.num_responses is not None and self.temperatures is not None:
            raise ValueError("temperatures sets the number of candidates; remove num_responses")
        return self

    @property
    def candidate_temperatures(self) -> tuple[float, ...]:
        """The temperature of each candidate."""
        if self.num_responses is not None:
            return (self.decoding.temperature,) * self.num_responses
        return self.temperatures or UPSTREAM_TEMPERATURES


class Training(Section):
    """One trainer. Rows longer than `seq_length` tokens are filtered out; `overrides` are Hydra's.

    `gpus` are the numbers of the GPUs that it may use (CUDA_VISIBLE_DEVICES); empty for all of them.
    """

    seq_length: int = Field(gt=1)
    overrides: tuple[str, ...]
    gpus: tuple[int, ...] = ()


class TrainerSettings(NamedTuple):
    """The settings of one trainer of a run.

    Attributes:
        key: its place in the run's configuration.
        step: the step that runs it.
        config: the name of its Hydra configuration.
        overrides: the user's Hydra overrides.
        seq_length: the sequence length in tokens.
        gpus: the numbers of the GPUs that it may use; empty for all.
    """

    key: str
    step: str
    config: str
    overrides: tuple[str, ...]
    seq_length: int
    gpus: tuple[int, ...]


class Ppo(Section):
    """The two processes of PPO, with the numbers of the GPUs that each may use; empty for all of them."""

    seq_length: int = Field(gt=1)
    critic: tuple[str, ...]
    actor: tuple[str, ...]
    critic_gpus: tuple[int, ...] = ()
    actor_gpus: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check_gpus(self) -> Ppo:
        for numbers in (self.critic_gpus, self.actor_gpus):
            if len(set(numbers)) != len(numbers):
                raise ValueError(f"critic_gpus and actor_gpus: {list(numbers)} names a GPU twice")
        return self


class Measure(Section):
    """Generation for the final measurement of the tiny assistant."""

    max_tokens: int = Field(gt=0)
    batch_size: int = Field(gt=0)


class Tracking(Section):
    """Services that get the metrics too; none by default. Their environment variables name servers and credentials."""

    wandb: str | None = None  # a project of Weights & Biases
    mlflow: str | None = None  # an experiment of MLflow


class RunConfig(Section):
    """The configuration of a run.

    Attributes:
        hardware: of the trainers whose own overrides choose none: the name of a file of the config group `hardware`,
            such as 8xh100; None for its default, or for cpu on a machine without a GPU.
        seed: of all random choices; in the range of NumPy's seeds.
        models: what the run begins with.
        serve: the servers that it starts.
        data: the inputs.
        sl_cai: step 2.
        sft: step 3.
        rl_cai: step 4.
        reward_model: step 5, with `ppo`.
        ppo: step 6.
        dpo: instead of `reward_model` and `ppo`, direct preference optimization of step 4's pairs.
        answers: answers of the three models to a few prompts.
        measure: the measurement of the tiny assistant, by its oracle.
        evaluate: the last step: prompt sets and graders for any model.
        executor: where the steps run.
        plan: what `cai plan` assumes.
        tracking: services that get the metrics too.
    """

    seed: int = Field(ge=0, lt=1 << 32)
    hardware: str | None = None
    data: Data
    models: Models
    serve: Serve = Serve()
    sl_cai: SlCai
    sft: Training
    rl_cai: RlCai
    reward_model: Training | None = None
    ppo: Ppo | None = None
    dpo: Training | None = None
    answers: Answers | None = None
    measure: Measure | None = None
    evaluate: Evaluate | None = None
    executor: Executor = LocalExecutor()
    plan: Assumptions | None = None
    tracking: Tracking = Tracking()

    @property
    def trainers(self) -> dict[str, TrainerSettings]:
        """All trainers by their place in the configuration, in the order of the steps."""
        found = [
            TrainerSettings(name, step, f"cai_{name}", section.overrides, section.seq_length, section.gpus)
            for name, step in (("sft", SFT), ("reward_model", REWARD_MODEL), ("dpo", DPO))
            if (section := getattr(self, name)) is not None
        ]
        if self.ppo is not None:
            found += [
                TrainerSettings(
                    f"ppo.{name}",
                    PPO,
                    f"cai_ppo_{name}",
                    getattr(self.ppo, name),
                    self.ppo.seq_length,
                    getattr(self.ppo, f"{name}_gpus"),
                )
                for name in ("critic", "actor")
            ]
        return {one.key: one._replace(overrides=self._with_hardware(one.overrides)) for one in found}

    def _with_hardware(self, overrides: tuple[str, ...]) -> tuple[str, ...]:
        chosen = self.hardware is None or chooses_hardware(overrides)
        return overrides if chosen else (f"hardware={self.hardware}", *overrides)

    @property
    def policy_step(self) -> str:
        """The step that trains the RL-CAI model."""
        return PPO if self.ppo else DPO

    @property
    def learn_earlier_replies(self) -> bool:
        """True if SL-CAI uses prompts that have earlier replies; see `SlCai`."""
        given = self.sl_cai.learn_earlier_replies
        return self.data.red_team is None if given is None else given

    @property
    def pairs_seq_length(self) -> int:
        """The sequence length of the trainer that learns from the pairs."""
        trainer = self.dpo or self.reward_model
        assert trainer is not None, "checked by the validator"
        return trainer.seq_length

    @field_validator("hardware")
    @classmethod
    def _check_hardware(cls, name: str | None) -> str | None:
        if name is not None and name not in (known := group_options("hardware")):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise ValueError(f"there is no hardware {name!r}; {hint}known: {', '.join(known)}")
        return name

    @model_validator(mode="after")
    def _check_stores(self) -> RunConfig:
        for key, value in _leaves(self.model_dump(exclude={"data"})):
            if is_object(value):
                raise ValueError(f"{key}: {value} is in an object store, where only the section data is read; copy it")
        return self

    @model_validator(mode="after")
    def _check_secrets(self) -> RunConfig:
        """Refuse secrets: the configuration is written into run.json, the report, job scripts and trackers."""
        # pydantic's own message, which a traceback shows, has the whole configuration: its secrets are redacted.
        key = first_secret(self.model_dump(exclude=_TEXTS))
        if key is not None:
            raise ValueError(
                f"{key}: contains a secret, which the files of the run would show; remove it and export it as "
                "an environment variable: servers and trainers inherit the environment, and jobs of a cluster get the "
                "variables that executor.secrets names. For the key of an endpoint, name the variable in key_env"
            )
        return self

    @model_validator(mode="after")
    def _check_sections(self) -> RunConfig:
        by_ppo = {"reward_model": self.reward_model is not None, "ppo": self.ppo is not None}
        if (self.dpo is not None) == any(by_ppo.values()) or len(set(by_ppo.values())) > 1:
            given = [*(name for name, there in by_ppo.items() if there), *(["dpo"] if self.dpo else [])]
            raise ValueError(f"give reward_model and ppo, or dpo instead of both; it has {given or 'none of them'}")
        if (self.measure is not None) != (self.data.tiny is not None):
            raise ValueError("measure, by the tiny world's oracle, and data.tiny belong together: give both or none")
        if self.evaluate is not None and self.evaluate.is_tiny and self.data.tiny is None:
            raise ValueError("evaluate: sets and graders named tiny belong to data.tiny")
        return self


def _leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted key and the value of each leaf of a tree."""
    if isinstance(tree, Mapping):
        for name, value in cast(Mapping[str, Any], tree).items():
            yield from _leaves(value, f"{key}.{name}".removeprefix("."))
    elif isinstance(tree, list | tuple):
        for number, value in enumerate(cast(Sequence[Any], tree)):
            yield from _leaves(value, f"{key}.{number}")
    else:
        yield key, tree


def load_run_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Load a run's configuration; see `load_config`. An override of a trainer's setting is refused with its place."""
    for override in overrides:
        _refuse_trainer_setting(path, override)
    return load_config(path, overrides, RunConfig)


def _refuse_trainer_setting(path: Path, override: str) -> None:
    """Raise UsageError for a setting of a trainer, such as `sft.trainer.max_steps=9`: it belongs in a list."""
    key, _, value = override.lstrip("+~").partition("=")
    sections = {section: key.removeprefix(f"{section}.") for section in _LISTS if key.startswith(f"{section}.")}
    for section, setting in sections.items():
        place, known = _LISTS[section], known_keys(f"cai_{section.replace('.', '_')}")
        found = setting if setting in known else meant(setting, known) if "." in setting else None
        if found is not None and setting.split(".")[0] not in Training.model_fields:
            raise UsageError(
                f"{override}: {found} is a setting of the trainer, with its default in {known[found]}; add "
                f"'{found}={value}' to the list {place} in {path}"
            )
    first = key.split(".")[0]
    if first not in RunConfig.model_fields and first in {one.split(".")[0] for one in known_keys("cai_sft")}:
        raise UsageError(
            f"{override}: a setting of a trainer; add it to the list of that trainer in {path}: "
            f"{', '.join(_LISTS.values())}"
        )


def closed_values() -> frozenset[str]:
    """The texts of settings that are one of a closed set; all other texts in a configuration are the user's.

    They are the words of the schema, the names of components, and the options of config groups.
    """
    names = (name for kind in BUILTIN for name in components(kind))
    options = (name for group in ("hardware", "peft") for name in group_options(group))
    return frozenset((*choices(RunConfig), *names, *options))


def shared_settings(section: SlCai | RlCai, settings: type[Config]) -> dict[str, Any]:
    """The fields of a section that a configuration of the stages has too."""
    return {name: getattr(section, name) for name in settings.model_fields}


def settings_of(section: SlCai | RlCai) -> dict[str, Any]:
    """A section without its defaults: a new key with a default does not invalidate earlier steps."""
    return section.model_dump(mode="json", exclude_defaults=True)
