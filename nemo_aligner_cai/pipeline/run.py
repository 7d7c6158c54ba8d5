# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The seven steps, in the order of the tutorial.

Each step reads files of earlier steps and writes into its own folder of the run; ``step_cache.py`` decides which steps
run again. Models are used through real servers; the trainers are NeMo-Aligner's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.files import require_file, write_json
from nemo_aligner_cai.models.nemo_server import NemoServerClient
from nemo_aligner_cai.pipeline import data_step, measure, training
from nemo_aligner_cai.pipeline.check import check
from nemo_aligner_cai.pipeline.config import RlCai, RunConfig, SlCai
from nemo_aligner_cai.pipeline.data_stages import rl_cai_config, sl_cai_config
from nemo_aligner_cai.pipeline.run_record import write_run_record
from nemo_aligner_cai.pipeline.serving import ask, served
from nemo_aligner_cai.pipeline.step_cache import Step, StepCache
from nemo_aligner_cai.pipeline.training import MODEL
from nemo_aligner_cai.report.report import refresh_report
from nemo_aligner_cai.stages.report import StageReport
from nemo_aligner_cai.stages.rl_cai import RlCaiConfig, RlCaiStage
from nemo_aligner_cai.stages.sl_cai import SlCaiConfig, SlCaiStage
from nemo_aligner_cai.tiny.data import Sizes, write_data
from nemo_aligner_cai.tiny.language import language
from nemo_aligner_cai.training.config import quoted
from nemo_aligner_cai.training.launch import jobs, srun

DATA, SL_CAI, SFT, RL_CAI, REWARD_MODEL, PPO, MEASURE = STEPS = (
    "1_data",
    "2_sl_cai",
    "3_sft",
    "4_rl_cai",
    "5_reward_model",
    "6_ppo",
    "7_measure",
)
_DATA_FILES = ("sl_prompts.jsonl", "rl_prompts.jsonl", "helpful_sft.jsonl", "measure.jsonl")
_HELPFUL_FILES = tuple(
    f"helpful_{split}_{what}_with_chat_prompt.jsonl"
    for split in ("train", "test")
    for what in ("prompts", "comparisons")
)


class Pipeline:
    """A run of Constitutional AI in one folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        """Validate the configuration; raises UsageError for a missing file, or as `check` does."""
        self.config = config
        self.folder = folder
        self.cache = StepCache(folder, on_done=refresh_report)
        tiny = config.models.helpful_only == "tiny"
        self.helpful_only = packaged_files.MODEL if tiny else Path(config.models.helpful_only)
        self.tokenizer_path = packaged_files.TOKENIZER if tiny else self.helpful_only.with_name("tokenizer.model")
        own = config.models.constitution == "tiny"
        self.constitution_path = packaged_files.CONSTITUTION if own else Path(config.models.constitution)
        for path in (self.helpful_only, self.tokenizer_path, self.constitution_path, config.data.red_team):
            if path is not None:
                require_file(path)
        check(config, self.helpful_only)
        self.tokenizer = load_tokenizer(self.tokenizer_path)
        # Validates the constitution and the judge before the first step.
        with SlCaiStage(self._sl_config(folder / SL_CAI)):
            RlCaiStage(self._rl_config(folder / RL_CAI))

    def _sl_config(self, folder: Path) -> SlCaiConfig:
        return sl_cai_config(self.config, self.constitution_path, self.tokenizer_path, self.folder / DATA, folder)

    def _rl_config(self, folder: Path) -> RlCaiConfig:
        return rl_cai_config(self.config, self.constitution_path, self.tokenizer_path, self.folder / DATA, folder)

    def run(self, first: str | None = None) -> dict[str, Any]:
        """Run the steps that are not done; returns the metrics, which are also written to ``metrics.json``.

        Args:
            first: run this step and all later ones again.

        Raises:
            UsageError: another run uses the folder, or it contains foreign files.
            CaiError: a step failed.
        """
        with self.cache.locked():
            if first:
                self.cache.forget(STEPS[STEPS.index(first) :])
            steps = self._recorded_steps()
            jobs.warm_up()
            return self._metrics([self.cache.run(step) for step in steps])

    def run_step(self, name: str) -> Mapping[str, Any]:
        """Run one step unless it is done; the steps that it reads from must be. The last one writes the metrics.

        Raises:
            StepMissing: an earlier step is not done.
            UsageError, CaiError: as for `run`.
        """
        with self.cache.locked():
            steps = self._recorded_steps()
            needed = _needed(steps, name, self.folder)
            records = [self.cache.require(step) for step in steps if step.name in needed]
            record = self.cache.run(next(step for step in steps if step.name == name))
            if name == steps[-1].name:
                self._metrics([*records, record])
        return record

    def _recorded_steps(self) -> tuple[Step, ...]:
        """The steps, after ``run.json`` has been written."""
        steps = self.steps()
        write_run_record(self.folder, self.config, self.constitution_path, steps)
        return steps

    def _metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        metrics = measure.metrics(records, seed=self.config.seed)
        write_json(self.folder / "metrics.json", metrics, overwrite=True)
        return metrics

    def steps(self) -> tuple[Step, ...]:
        """The seven steps with their inputs, outputs and settings."""
        config, file = self.config, self._file
        seed = {"seed": config.seed}
        few_shots = [config.sl_cai.few_shots] if config.sl_cai.few_shots else []
        sl_cai_model, reward_model, rl_cai_model = (file(step, MODEL) for step in (SFT, REWARD_MODEL, PPO))
        sl_prompts, rl_prompts, helpful_sft, measured = (file(DATA, name) for name in _DATA_FILES)
        return (
            Step(
                DATA,
                "Step 1: prompts and helpfulness data",
                reads=(self.tokenizer_path, *([config.data.red_team] if config.data.red_team else [])),
                makes=(*_DATA_FILES, *_HELPFUL_FILES),
                settings=seed | config.data.model_dump(mode="json"),
                work=self._data,
            ),
            Step(
                SL_CAI,
                "Step 2: critiques and revisions (SL-CAI)",
                reads=(self.helpful_only, self.constitution_path, sl_prompts, helpful_sft, *few_shots),
                makes=("revisions.jsonl", "train.jsonl", "validation.jsonl"),
                settings=seed | _settings(config.sl_cai) | {"sft": config.sft.seq_length},
                work=self._sl_cai,
            ),
            Step(
                SFT,
                "Step 3: fine-tuning on the revisions (SFT)",
                reads=(self.helpful_only, file(SL_CAI, "train.jsonl"), file(SL_CAI, "validation.jsonl")),
                makes=(MODEL,),
                settings=seed | config.sft.model_dump(),
                work=self._sft,
            ),
            Step(
                RL_CAI,
                "Step 4: candidate responses and AI preferences (RL-CAI)",
                reads=(
                    *(sl_cai_model, self.helpful_only, self.constitution_path, rl_prompts),
                    *(file(DATA, name) for name in _HELPFUL_FILES),
                ),
                makes=("comparisons.jsonl", "rm_train.jsonl", "rm_test.jsonl", "ppo_train.jsonl", "ppo_test.jsonl"),
                settings=seed
                | _settings(config.rl_cai)
                | {"reward_model": config.reward_model.seq_length, "ppo": config.ppo.seq_length},
                work=self._rl_cai,
            ),
            Step(
                REWARD_MODEL,
                "Step 5: reward model",
                reads=(sl_cai_model, file(RL_CAI, "rm_train.jsonl"), file(RL_CAI, "rm_test.jsonl")),
                makes=(MODEL,),
                settings=seed | config.reward_model.model_dump(),
                work=self._reward_model,
            ),
            Step(
                PPO,
                "Step 6: PPO against the reward model",
                reads=(sl_cai_model, reward_model, file(RL_CAI, "ppo_train.jsonl"), file(RL_CAI, "ppo_test.jsonl")),
                makes=(MODEL,),
                settings=seed | config.ppo.model_dump(),
                work=self._ppo,
            ),
            Step(
                MEASURE,
                "Step 7: inference and measurement",
                reads=(self.helpful_only, sl_cai_model, rl_cai_model, measured, file(RL_CAI, "comparisons.jsonl")),
                makes=("figures.json",),
                settings=seed | config.measure.model_dump(),
                work=self._measure,
            ),
        )

    def _data(self, folder: Path) -> Mapping[str, Any]:
        """Generate the tiny world's files, and read prompts and preferences like real data sets."""
        config = self.config.data
        sizes = Sizes(**config.tiny.model_dump(exclude={"measured_split"}))
        write_data(folder, language(), sizes, seed=self.config.seed, measured=config.tiny.measured_split)
        counts = data_step.red_team_prompts(
            config.red_team or folder / "red_team_attempts.jsonl",
            (folder / "sl_prompts.jsonl", folder / "rl_prompts.jsonl"),
            share=config.sl_share,
            turns=config.red_team_turns,
            limit=config.red_team_limit,
            max_tokens=config.max_prompt_tokens,
            tokenizer=self.tokenizer,
            seed=self.config.seed,
        )
        return {"balances": counts | data_step.helpful_preferences(folder / "helpful-base", folder)}

    def _sl_cai(self, folder: Path) -> Mapping[str, Any]:
        """The helpful-only model responds, critiques and revises."""
        with SlCaiStage(self._sl_config(folder)) as stage:
            stage.begin()
            with self._served(self.helpful_only, folder / "server.log", self.config.sl_cai.batch_size) as client:
                summary = ask(stage.generate(client), client)
            report = stage.finish(summary, client)
        report.check()
        return _facts(report)

    def _sft(self, folder: Path) -> Mapping[str, Any]:
        """Fine-tune the helpful-only model on the revisions, by NeMo-Aligner's SFT."""
        overrides = (
            f"model.restore_from_path={quoted(self.helpful_only)}",
            f"model.data.train_ds.file_path={quoted(self._file(SL_CAI, 'train.jsonl'))}",
            f"model.data.validation_ds.file_path={quoted(self._file(SL_CAI, 'validation.jsonl'))}",
            f"model.data.train_ds.max_seq_length={self.config.sft.seq_length}",
            *self._common(folder),
            *self.config.sft.overrides,
        )
        return training.train_and_collect(folder, lambda: training.run("sft", overrides, folder))

    def _rl_cai(self, folder: Path) -> Mapping[str, Any]:
        """The SL-CAI model generates candidates; the helpful-only model judges them by the constitution."""
        batch_size, stage = self.config.rl_cai.batch_size, RlCaiStage(self._rl_config(folder))
        stage.begin()
        with (
            self._served(self._file(SFT, MODEL), folder / "policy.log", batch_size) as policy,
            self._served(self.helpful_only, folder / "judge.log", batch_size) as judge,
        ):
            summary = ask(stage.generate(policy, judge), policy, judge)
        report = stage.finish(summary, policy, judge)
        report.check()
        return _facts(report)

    def _reward_model(self, folder: Path) -> Mapping[str, Any]:
        """Train NeMo-Aligner's Bradley-Terry reward model on the blended comparisons."""
        overrides = (
            f"pretrained_checkpoint.restore_from_path={quoted(self._file(SFT, MODEL))}",
            f"model.data.data_prefix={self._data_prefix('rm')}",
            f"model.data.seq_length={self.config.reward_model.seq_length}",
            f"++model.encoder_seq_length={self.config.reward_model.seq_length}",
            *self._common(folder),
            *self.config.reward_model.overrides,
        )
        return training.train_and_collect(folder, lambda: training.run("reward_model", overrides, folder))

    def _ppo(self, folder: Path) -> Mapping[str, Any]:
        """Run NeMo-Aligner's PPO: the actor, and a server that is critic and reward model."""
        host, port = srun.this_host(), jobs.free_port()
        critic = (
            f"pretrained_checkpoint.restore_from_path={quoted(self._file(REWARD_MODEL, MODEL))}",
            f"trainer.ppo.host={host}",
            f"trainer.ppo.port={port}",
            f"++model.encoder_seq_length={self.config.ppo.seq_length}",
            f"++model.seed={self.config.seed}",
            f"exp_manager.explicit_log_dir={quoted(folder / 'critic')}",
            *self.config.ppo.critic,
        )
        actor = (
            f"pretrained_checkpoint.restore_from_path={quoted(self._file(SFT, MODEL))}",
            f"model.data.data_prefix={self._data_prefix('ppo')}",
            f"model.data.seq_length={self.config.ppo.seq_length}",
            f"++model.encoder_seq_length={self.config.ppo.seq_length}",
            f"remote_critic_rm.critic.ip={host}",
            f"remote_critic_rm.critic.port={port}",
            *self._common(folder),
            *self.config.ppo.actor,
        )
        server = "nemo_aligner_cai.training.critic_server"

        def train() -> None:
            training.remove_unequal_checkpoints(folder / "train", folder / "critic")
            with jobs.server(server, critic, folder / "critic.log", jobs.critic_urls(host, port)) as job:
                training.run("ppo_actor", actor, folder, servers=[job], component=srun.ACTOR)

        return training.train_and_collect(folder, train)

    def _measure(self, folder: Path) -> Mapping[str, Any]:
        """Generate replies of the three models to held-out prompts, and classify them by the oracle."""
        models = {
            "helpful_only": self.helpful_only,
            "sl_cai": self._file(SFT, MODEL),
            "rl_cai": self._file(PPO, MODEL),
        }
        prompts, config = self._file(DATA, "measure.jsonl"), self.config.measure
        stages: dict[str, Any] = {}
        for stage, model in models.items():
            with self._served(model, folder / f"{stage}.log", config.batch_size) as client:
                asked = measure.stage_figures(client, prompts, folder / stage, config.max_tokens, self.config.seed)
                stages[stage] = ask(asked, client)
        figures = {
            "stages": stages,
            "judge": measure.judge_figures(self._file(RL_CAI, "comparisons.jsonl")),
            "reward_model": measure.last_metrics(self.folder / REWARD_MODEL / "train"),
        }
        write_json(folder / "figures.json", figures, overwrite=True)
        return figures

    def _served(self, model: Path, log: Path, batch_size: int) -> AbstractContextManager[NemoServerClient]:
        return served(model, log, identity=self.cache.identity(model), batch_size=batch_size)

    def _file(self, step: str, name: str) -> Path:
        return self.folder / step / name

    def _common(self, folder: Path) -> tuple[str, ...]:
        return (f"exp_manager.explicit_log_dir={quoted(folder / 'train')}", f"model.seed={self.config.seed}")

    def _data_prefix(self, name: str) -> str:
        train, test = (quoted(self._file(RL_CAI, f"{name}_{split}.jsonl")) for split in ("train", "test"))
        return f"{{train: [{train}], validation: [{test}], test: [{test}]}}"


def _needed(steps: Sequence[Step], name: str, folder: Path) -> set[str]:
    """The names of the steps from which a step reads, directly or through another step."""
    readers, found = {name}, set[str]()
    for step in reversed(steps):
        if step.name in readers:
            found.add(step.name)
            readers |= {path.parent.name for path in step.reads if path.is_relative_to(folder)}
    return found - {name}


def _facts(report: StageReport) -> dict[str, Any]:
    """A data stage's counts, for the record of its step."""
    return {"balances": dict(report.rows), "generation": report.summary.to_dict()}


def _settings(section: SlCai | RlCai) -> dict[str, Any]:
    """A section without its defaults: a new key with a default does not invalidate earlier steps."""
    return section.model_dump(mode="json", exclude_defaults=True)
