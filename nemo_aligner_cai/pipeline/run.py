# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a run, in the order of the tutorial.

Each step reads files of earlier steps and writes into its own folder of the run; ``step_cache.py`` decides which steps
run again. Models are used through real servers; the trainers are NeMo-Aligner's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_json, write_json, write_jsonl
from nemo_aligner_cai.models import ModelClient
from nemo_aligner_cai.pipeline import tracking
from nemo_aligner_cai.pipeline.check import check
from nemo_aligner_cai.pipeline.config import RunConfig, settings_of
from nemo_aligner_cai.pipeline.layout import (
    ANSWERS,
    ANSWERS_FILE,
    DATA,
    DPO,
    HELPFUL_PREFERENCES,
    HELPFUL_SFT,
    MEASURE,
    MEASURED,
    MODEL,
    PPO,
    REWARD_MODEL,
    RL_CAI,
    RL_PROMPTS,
    SFT,
    SL_CAI,
    SL_PROMPTS,
    STEPS,
    Layout,
)
from nemo_aligner_cai.pipeline.run_record import write_run_record
from nemo_aligner_cai.pipeline.serving.clients import Clients
from nemo_aligner_cai.pipeline.serving.model_files import ModelFiles, as_step
from nemo_aligner_cai.pipeline.serving.servers import ask
from nemo_aligner_cai.pipeline.step_cache import Step, StepCache
from nemo_aligner_cai.pipeline.steps import data as data_step
from nemo_aligner_cai.pipeline.steps import measure, trainers, training
from nemo_aligner_cai.pipeline.steps.answers import Answers, ask_all
from nemo_aligner_cai.pipeline.steps.data_stages import StageInputs, rl_cai_config, sl_cai_config
from nemo_aligner_cai.pipeline.steps.evaluate import evaluate_step
from nemo_aligner_cai.report.report import refresh_report
from nemo_aligner_cai.stages.report import StageReport
from nemo_aligner_cai.stages.rl_cai import RlCaiStage
from nemo_aligner_cai.stages.sl_cai import SlCaiStage
from nemo_aligner_cai.training.launch import jobs, srun

__all__ = ["DATA", "DPO", "MEASURE", "MODEL", "PPO", "REWARD_MODEL", "RL_CAI", "SFT", "SL_CAI", "STEPS", "Pipeline"]

T = TypeVar("T")


class Pipeline:
    """A run of Constitutional AI in one folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        """Validate the configuration; raises UsageError for a missing file, or as `check` does."""
        self.config = config
        self.folder = folder
        self.cache = StepCache(folder, on_done=refresh_report)
        self.layout = Layout(folder)
        self.files = ModelFiles(config.models, self.layout)
        self.clients = Clients(config, self.files, self.cache.identity)
        check(config, self.files, self.clients)
        tracking.check(config.tracking)
        # Validates the constitution and the judge before the first step.
        with SlCaiStage(sl_cai_config(config, self._inputs, folder / SL_CAI)):
            RlCaiStage(rl_cai_config(config, self._inputs, folder / RL_CAI))

    def run(self, first: str | None = None) -> dict[str, Any]:
        """Run the steps that are not done; returns the metrics, which are also written to ``metrics.json``.

        Args:
            first: run this step and all later ones again.

        Raises:
            UsageError: another run uses the folder, or it contains foreign files.
            CaiError: a step failed.
        """
        with self.cache.locked():
            steps = self._recorded_steps()
            if first:
                self.cache.forget(self.names_from(first))
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
            self.names_from(name)
            step = next(step for step in steps if step.name == name)
            needed = _needed(steps, name, self.folder)
            records = [self.cache.require(step) for step in steps if step.name in needed]
            record = self.cache.run(step)
            if name == steps[-1].name:
                self._metrics([*records, record])
        return record

    def names_from(self, name: str) -> list[str]:
        """The name of a step and of all later ones; raises UsageError if the run has no such step."""
        names = [step.name for step in self.steps()]
        if name not in names:
            raise UsageError(f"{name}: this run has no such step; its steps are {', '.join(names)}")
        return names[names.index(name) :]

    def _recorded_steps(self) -> tuple[Step, ...]:
        """The steps, after ``run.json`` has been written."""
        steps = self.steps()
        write_run_record(self.folder, self.config, self.config.models.constitution, steps)
        return steps

    def _metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        metrics = measure.metrics(records, seed=self.config.seed)
        file = self.folder / "metrics.json"
        # A run whose steps are all done has sent its metrics before.
        is_new = not file.is_file() or read_json(file) != metrics
        write_json(file, metrics, overwrite=True)
        if is_new:
            tracking.log_run(self.config.tracking, self.folder, metrics, self.config.model_dump(mode="json"))
        return metrics

    def steps(self) -> tuple[Step, ...]:
        """The steps with their inputs, outputs and settings, conversions of models included."""
        own = [self._data_step(), self._sl_cai_step(), self._sft_step(), self._rl_cai_step()]
        own += [self._reward_model_step(), self._ppo_step()] if self.config.ppo else [self._dpo_step()]
        if self.config.answers is not None:
            own.append(self._answers_step(self.config.answers))
        if self.config.measure is not None:
            own.append(self._measure_step())
        if self.config.evaluate is not None:
            own.append(evaluate_step(self.config, self.clients, self.layout, self._policy))
        # A conversion is needed by a later step, and follows the step that makes its source.
        conversions = [as_step(conversion) for conversion in self.files.conversions.values()]
        return tuple(sorted([*conversions, *own], key=lambda step: step.name))

    @property
    def _seed(self) -> dict[str, Any]:
        return {"seed": self.config.seed}

    @property
    def _policy(self) -> str:
        """The step that makes the RL-CAI model."""
        return PPO if self.config.ppo else DPO

    @property
    def _inputs(self) -> StageInputs:
        tokenizer = self.files.tokenizer
        # A model on the hub has no tokenizer here until it is downloaded.
        return StageInputs(
            self.config.models.constitution, tokenizer if tokenizer.exists() else None, self.layout.data
        )

    def _read(self, *paths: Path | None) -> tuple[Path, ...]:
        return tuple(path for path in paths if path is not None)

    def _data_step(self) -> Step:
        data = self.config.data
        measured = (MEASURED,) if data.tiny else ()
        return Step(
            DATA,
            "Step 1: prompts and helpfulness data",
            reads=(self.files.tokenizer, *data.files),
            makes=(SL_PROMPTS, RL_PROMPTS, HELPFUL_SFT, *measured, *HELPFUL_PREFERENCES),
            settings=self._seed | data.model_dump(mode="json", exclude_defaults=True),
            work=self._data,
        )

    def _data(self, folder: Path) -> Mapping[str, Any]:
        """Generate the tiny world's files, and read prompts and preferences like real data sets."""
        tokenizer = load_tokenizer(self.files.tokenizer)
        return {
            "balances": data_step.write_data_files(
                self.config.data, folder, tokenizer=tokenizer, seed=self.config.seed
            )
        }

    def _sl_cai_step(self) -> Step:
        config = self.config
        return Step(
            SL_CAI,
            "Step 2: critiques and revisions (SL-CAI)",
            reads=self._read(
                self.clients.path("helpful_only"),
                config.models.constitution,
                self.layout.file(DATA, SL_PROMPTS),
                self.layout.file(DATA, HELPFUL_SFT),
                config.sl_cai.few_shots,
            ),
            makes=("revisions.jsonl", "train.jsonl", "validation.jsonl"),
            settings=self._seed | settings_of(config.sl_cai) | {"sft": config.sft.seq_length},
            endpoints=lambda: self.clients.endpoint_identities("helpful_only"),
            work=self._sl_cai,
        )

    def _sl_cai(self, folder: Path) -> Mapping[str, Any]:
        """The helpful-only model responds, critiques and revises."""
        with SlCaiStage(sl_cai_config(self.config, self._inputs, folder)) as stage:
            stage.begin()
            with self.clients.of("helpful_only", folder / "server.log", self.config.sl_cai.batch_size) as client:
                summary = ask(stage.generate(client), client)
            report = stage.finish(summary, client)
        report.check()
        return _facts(report)

    def _sft_step(self) -> Step:
        base = self.files.nemo("base")
        rows = (self.layout.file(SL_CAI, f"{split}.jsonl") for split in ("train", "validation"))

        def work(folder: Path) -> Mapping[str, Any]:
            return training.train(folder, trainers.sft(self.config, self.layout, base), base)

        return Step(
            SFT,
            "Step 3: fine-tuning on the revisions (SFT)",
            reads=(base, *rows),
            makes=(MODEL,),
            settings=self._seed | _training_settings(self.config.sft),
            work=work,
        )

    def _rl_cai_step(self) -> Step:
        config = self.config
        lengths = {"reward_model": config.pairs_seq_length} | ({"ppo": config.ppo.seq_length} if config.ppo else {})
        return Step(
            RL_CAI,
            "Step 4: candidate responses and AI preferences (RL-CAI)",
            reads=self._read(
                self.clients.trained_path(SFT),
                self.clients.path("judge"),
                config.models.constitution,
                self.layout.file(DATA, RL_PROMPTS),
                *(self.layout.file(DATA, name) for name in HELPFUL_PREFERENCES),
                config.rl_cai.judge_few_shots,
            ),
            makes=("comparisons.jsonl", "rm_train.jsonl", "rm_test.jsonl", "ppo_train.jsonl", "ppo_test.jsonl"),
            settings=self._seed | settings_of(config.rl_cai) | lengths,
            endpoints=lambda: self.clients.endpoint_identities("judge"),
            work=self._rl_cai,
        )

    def _rl_cai(self, folder: Path) -> Mapping[str, Any]:
        """The SL-CAI model generates candidates; the judge compares them by the constitution."""
        batch_size, stage = self.config.rl_cai.batch_size, RlCaiStage(rl_cai_config(self.config, self._inputs, folder))
        stage.begin()
        with (
            self.clients.trained(SFT, folder / "policy.log", batch_size) as policy,
            self.clients.of("judge", folder / "judge.log", batch_size) as judge,
        ):
            summary = ask(stage.generate(policy, judge), policy, judge)
        report = stage.finish(summary, policy, judge)
        report.check()
        return _facts(report)

    def _reward_model_step(self) -> Step:
        assert self.config.reward_model is not None, "a run by PPO has it"

        def work(folder: Path) -> Mapping[str, Any]:
            return training.train(folder, trainers.reward_model(self.config, self.layout))

        return Step(
            REWARD_MODEL,
            "Step 5: reward model",
            reads=(self.layout.file(SFT, MODEL), *self._pairs("rm")),
            makes=(MODEL,),
            settings=self._seed | _training_settings(self.config.reward_model),
            work=work,
        )

    def _ppo_step(self) -> Step:
        assert self.config.ppo is not None, "a run by PPO has it"
        return Step(
            PPO,
            "Step 6: PPO against the reward model",
            reads=(self.layout.file(SFT, MODEL), self.layout.file(REWARD_MODEL, MODEL), *self._pairs("ppo")),
            makes=(MODEL,),
            settings=self._seed | self.config.ppo.model_dump(exclude={"critic_gpus", "actor_gpus"}),
            work=self._ppo,
        )

    def _ppo(self, folder: Path) -> Mapping[str, Any]:
        """Run NeMo-Aligner's PPO: the actor, and a server that is critic and reward model."""
        host, port = srun.this_host(), jobs.free_port()
        return training.train_ppo(
            folder,
            trainers.critic(self.config, self.layout, host=host, port=port),
            trainers.actor(self.config, self.layout, host=host, port=port),
            self.layout.file(SFT, MODEL),
            jobs.critic_urls(host, port),
        )

    def _dpo_step(self) -> Step:
        assert self.config.dpo is not None, "a run without PPO has it"
        start = self.layout.file(SFT, MODEL)

        def work(folder: Path) -> Mapping[str, Any]:
            return training.train(folder, trainers.dpo(self.config, self.layout), start)

        return Step(
            DPO,
            "Step 5: direct preference optimization (DPO)",
            reads=(start, *self._pairs("rm")),
            makes=(MODEL,),
            settings=self._seed | _training_settings(self.config.dpo),
            work=work,
        )

    def _pairs(self, kind: str) -> tuple[Path, ...]:
        return tuple(self.layout.file(RL_CAI, f"{kind}_{split}.jsonl") for split in ("train", "test"))

    def _measure_step(self) -> Step:
        assert self.config.measure is not None, "only runs with it have the step"
        return Step(
            MEASURE,
            "Step 7: inference and measurement",
            reads=self._read(
                *self._each_path(),
                self.layout.file(DATA, MEASURED),
                self.layout.file(RL_CAI, "comparisons.jsonl"),
            ),
            makes=("figures.json",),
            settings=self._seed | self.config.measure.model_dump(),
            endpoints=lambda: self.clients.endpoint_identities("helpful_only"),
            work=self._measure,
        )

    def _measure(self, folder: Path) -> Mapping[str, Any]:
        """Generate replies of the three models to held-out prompts, and classify them by the oracle."""
        assert self.config.measure is not None, "only runs with it have the step"
        prompts, max_tokens = self.layout.file(DATA, MEASURED), self.config.measure.max_tokens
        seed = self.config.seed
        figures = {
            "stages": self._ask_each(
                folder,
                self.config.measure.batch_size,
                lambda stage, client: measure.stage_figures(client, prompts, folder / stage, max_tokens, seed),
            ),
            "judge": measure.judge_figures(self.layout.file(RL_CAI, "comparisons.jsonl")),
            "reward_model": measure.last_metrics(self.folder / REWARD_MODEL / trainers.LOG_DIR),
        }
        write_json(folder / "figures.json", figures, overwrite=True)
        return figures

    def _answers_step(self, section: Answers) -> Step:
        def work(folder: Path) -> Mapping[str, Any]:
            found = self._ask_each(
                folder,
                section.batch_size,
                lambda stage, client: ask_all(
                    client, section, folder / f"{stage}.journal.jsonl", seed=self.config.seed
                ),
            )
            rows = [{"model": stage, **row} for stage, rows in found.items() for row in rows]
            write_jsonl(folder / ANSWERS_FILE, rows, overwrite=True)
            return {"answers": len(rows)}

        return Step(
            ANSWERS,
            "Step 7: answers of the three models",
            reads=self._read(*self._each_path()),
            makes=(ANSWERS_FILE,),
            settings=self._seed | section.model_dump(mode="json", exclude_defaults=True),
            endpoints=lambda: self.clients.endpoint_identities("helpful_only"),
            work=work,
        )

    def _each_path(self) -> tuple[Path | None, ...]:
        """The files or folders that the servers of `_ask_each` read."""
        trained = (self.clients.trained_path(step) for step in (SFT, self._policy))
        return (self.clients.path("helpful_only"), *trained)

    def _ask_each(
        self, folder: Path, batch_size: int, work: Callable[[str, ModelClient], Coroutine[Any, Any, T]]
    ) -> dict[str, T]:
        """The results of `work` with the name and the client of each of the three models, served in turn."""
        found: dict[str, T] = {}
        for stage, step in (("helpful_only", None), ("sl_cai", SFT), ("rl_cai", self._policy)):
            log = folder / f"{stage}.log"
            served = self.clients.trained(step, log, batch_size) if step else None
            with served or self.clients.of("helpful_only", log, batch_size) as client:
                found[stage] = ask(work(stage, client), client)
        return found


def _training_settings(section: Any) -> dict[str, Any]:
    # The numbers of the GPUs are those of a machine.
    return section.model_dump(exclude={"gpus"})


def _needed(steps: Sequence[Step], name: str, folder: Path) -> set[str]:
    """The names of the steps from which a step reads, directly or through another step."""
    readers, found = {name}, set[str]()
    for step in reversed(steps):
        if step.name in readers:
            found.add(step.name)
            readers |= {path.relative_to(folder).parts[0] for path in step.reads if path.is_relative_to(folder)}
    return found - {name}


def _facts(report: StageReport) -> dict[str, Any]:
    """A data stage's counts, for the record of its step."""
    return {"balances": dict(report.rows), "generation": report.summary.to_dict()}
