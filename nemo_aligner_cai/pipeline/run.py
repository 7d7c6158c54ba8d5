# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A run: its steps in the order of the tutorial, each run unless it is done.

Each step reads files of earlier steps and writes into its own folder of the run; ``step_cache.py`` decides which steps
run again. Models are used through real servers; the trainers are NeMo-Aligner's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_json, write_json
from nemo_aligner_cai.pipeline import metrics, tracking
from nemo_aligner_cai.pipeline.check import Checks, check
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.layout import Layout
from nemo_aligner_cai.pipeline.run_record import write_run_record
from nemo_aligner_cai.pipeline.serving.clients import Clients
from nemo_aligner_cai.pipeline.serving.model_files import ModelFiles, as_step
from nemo_aligner_cai.pipeline.step_cache import Step, StepCache
from nemo_aligner_cai.pipeline.steps.answers import answers_step
from nemo_aligner_cai.pipeline.steps.context import Calls, RunContext
from nemo_aligner_cai.pipeline.steps.data import data_step
from nemo_aligner_cai.pipeline.steps.data_stages import check_stages, rl_cai_step, sl_cai_step
from nemo_aligner_cai.pipeline.steps.evaluate import evaluate_step
from nemo_aligner_cai.pipeline.steps.measure import measure_step
from nemo_aligner_cai.pipeline.steps.training import dpo_step, ppo_step, reward_model_step, sft_step
from nemo_aligner_cai.report.report import refresh_report
from nemo_aligner_cai.training.launch import jobs


class Pipeline:
    """A run of Constitutional AI in one folder."""

    def __init__(self, config: RunConfig, folder: Path, calls: Calls = "all", *, checks: Checks | None = None) -> None:
        """Validate the configuration; raises UsageError for a missing file, or as `check` does.

        Args:
            config: the run's.
            folder: the run's.
            calls: the calls that this process makes for the data stages; those of one shard only by `run_shard`.
            checks: those of a dry run, which lists what this machine does not have; None for a run, which raises.
        """
        self.config = config
        self.folder = folder
        checks = checks or Checks()
        self.cache = StepCache(folder, on_done=refresh_report, read_only=checks.dry_run)
        layout = Layout(folder)
        files = ModelFiles(config.models, layout)
        clients = Clients(config, files, self.cache.identity, no_calls=calls == "none")
        self.context = RunContext(config, layout, files, clients, calls)
        check(config, files, clients, checks)
        with checks.of("tracking"):
            tracking.check(config.tracking)
        check_stages(self.context, checks)

    def run(self, first: str | None = None) -> dict[str, Any]:
        """Run the steps that are not done; returns the metrics, which are also written to ``metrics.json``.

        With `first`, that step and all later ones are run again.

        Raises:
            UsageError: another run uses the folder, or it contains foreign files.
            CaiError: a step failed.
        """
        with self.cache.locked():
            steps = self.steps()
            self._write_run_record(steps)
            if first:
                self.cache.forget(self.names_from(first))
            jobs.warm_up()
            return self._metrics([self.cache.run(step) for step in steps])

    def run_step(self, name: str) -> Mapping[str, Any]:
        """Run one step unless it is done; the steps that it reads from must be. The metrics follow the last of all.

        Raises:
            StepMissing: an earlier step is not done.
            UsageError, CaiError: as for `run`.
        """
        steps = self.steps()
        step = self._step_if_ready(steps, name)
        # A step that is done needs no lock: a batch system may start it once more while a later one runs.
        record = self.cache.done_before(step)
        if record is None:
            with self.cache.locked():
                self._write_run_record(steps)
                record = self.cache.run(step)
        if records := self.cache.current(steps):
            self._metrics(records)
        return record

    def run_shard(self, name: str) -> None:
        """Make the calls of one shard of a data stage; other processes may run other shards at the same time.

        Raises:
            StepMissing, UsageError, CaiError: as for `run_step`.
        """
        with self.cache.locked(shared=True):
            step = self._step_if_ready(self.steps(), name)
            self.cache.run_shard(step)

    def _step_if_ready(self, steps: Sequence[Step], name: str) -> Step:
        """A step; raises StepMissing if one that it needs is not done."""
        self.names_from(name)
        needed = _needed(steps, name, self.folder)
        for step in steps:
            if step.name in needed:
                self.cache.require(step)
        return next(step for step in steps if step.name == name)

    def names_from(self, name: str) -> list[str]:
        """The name of a step and of all later ones; raises UsageError if the run has no such step."""
        names = [step.name for step in self.steps()]
        if name not in names:
            raise UsageError(f"{name}: this run has no such step; its steps are {', '.join(names)}")
        return names[names.index(name) :]

    def _write_run_record(self, steps: Sequence[Step]) -> None:
        write_run_record(self.folder, self.config, self.config.models.constitution, steps)

    def _metrics(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found = metrics.metrics(records, seed=self.config.seed)
        file = self.folder / "metrics.json"
        # A run whose steps are all done has sent its metrics before.
        is_new = not file.is_file() or read_json(file) != found
        write_json(file, found, overwrite=True)
        if is_new:
            tracking.log_run(self.config.tracking, self.folder, found, self.config.model_dump(mode="json"))
        return found

    def steps(self) -> tuple[Step, ...]:
        """The steps with their inputs, outputs and settings, conversions of models included."""
        config = self.config
        makers = [data_step, sl_cai_step, sft_step, rl_cai_step]
        makers += [reward_model_step, ppo_step] if config.ppo else [dpo_step]
        makers += [answers_step] if config.answers else []
        makers += [measure_step] if config.measure else []
        makers += [evaluate_step] if config.evaluate else []
        own = [make(self.context) for make in makers]
        # A conversion is needed by a later step, and follows the step that makes its source.
        conversions = [as_step(conversion) for conversion in self.context.files.conversions.values()]
        return tuple(sorted([*conversions, *own], key=lambda step: step.name))


def _needed(steps: Sequence[Step], name: str, folder: Path) -> set[str]:
    """The names of the steps from which a step reads, directly or through another step."""
    readers, found = {name}, set[str]()
    for step in reversed(steps):
        if step.name in readers:
            found.add(step.name)
            readers |= {path.relative_to(folder).parts[0] for path in step.reads if path.is_relative_to(folder)}
    return found - {name}
