# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A run on a Slurm cluster, seen from the login node."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nemo_aligner_cai.errors import NotHere, UsageError
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.dry_run import dry_run_checks, not_checked
from nemo_aligner_cai.pipeline.executors import submit
from nemo_aligner_cai.pipeline.executors.environment import used_variables
from nemo_aligner_cai.pipeline.executors.job import forget_starts
from nemo_aligner_cai.pipeline.executors.script import FOLDER, StepJob
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.pipeline.executors.sizes import MERGE, sizes
from nemo_aligner_cai.pipeline.run import Pipeline
from nemo_aligner_cai.pipeline.step_cache import StepMissing


@dataclass(frozen=True)
class Request:
    """The jobs to submit.

    Attributes:
        config: the run's configuration.
        executor: the executor's settings.
        folder: the run's folder.
        arguments: the arguments of `cai run` that reproduce the configuration, without --output and --step.
        step: submit this step only; None for all steps that are not done.
        first: repeat this step and all later ones.
        chain: followers of each job; 0 to requeue it.
    """

    config: RunConfig
    executor: SlurmExecutor
    folder: Path
    arguments: tuple[str, ...]
    step: str | None = None
    first: str | None = None
    chain: int = 0


def submit_run(request: Request) -> submit.JobIds:
    """Submit the steps of a run; returns the ids of each step's jobs, none if all steps are done.

    Raises:
        UsageError: an invalid configuration, a step or a machine that cannot run the jobs, or a job that Slurm
            refuses. Nothing is submitted then, and no file of a step is removed.
        CaiError: Slurm does not answer.
    """
    submit.check(request.executor)
    submit.require_none_queued(request.folder / FOLDER)
    pipeline = Pipeline(request.config, request.folder)
    with pipeline.cache.locked():
        jobs = _jobs(request, pipeline, _steps(request, pipeline))
        if not jobs:
            return {}
        submit.prepare(jobs, request.executor, chain=request.chain)
        # After all that may refuse the jobs: a mistake must not cost the results of hours.
        if request.first is not None:
            pipeline.cache.forget(pipeline.names_from(request.first))
        for step in {job.step for job in jobs}:
            forget_starts(step, request.folder)
    # Without the lock: the first job needs it, and may start at once.
    return submit.submit(jobs, chain=request.chain)


def print_run(request: Request) -> str:
    """The scripts and commands that `submit_run` would use, to paste into a shell; writes nothing.

    Raises:
        UsageError: an invalid configuration.
    """
    checks = dry_run_checks()
    pipeline = Pipeline(request.config, request.folder, checks=checks)
    jobs = _jobs(request, pipeline, _steps(request, pipeline, missing=NotHere))
    printed = submit.printed(jobs, request.executor, chain=request.chain) if jobs else ""
    return printed + not_checked(checks)


def _steps(request: Request, pipeline: Pipeline, missing: type[UsageError] = StepMissing) -> list[str]:
    """The steps to submit: the requested one, or all from the first one that is not done or is to be repeated.

    A step is not done, either, if the test for it raises `missing`.
    """
    if request.step is not None:
        return [request.step]
    repeated = pipeline.names_from(request.first) if request.first is not None else []
    for step in pipeline.steps():
        if step.name in repeated:
            break
        try:
            pipeline.cache.require(step)
        except (StepMissing, missing):
            return pipeline.names_from(step.name)
    return repeated


def _jobs(request: Request, pipeline: Pipeline, steps: Sequence[str]) -> list[StepJob]:
    for name in [*request.executor.steps, *steps]:
        pipeline.names_from(name)
    folder = request.folder.absolute()
    command = (*_program(), "run", *request.arguments, "--output", str(folder))
    variables = used_variables(request.config, os.environ)
    jobs: list[StepJob] = []
    for step in steps:
        size, shards = sizes(request.config, request.executor, step), request.executor.shards_of(step)
        job = StepJob(step, folder / FOLDER, size, (*command, "--step", step), shards, variables)
        jobs += [job, replace(job, sizes=(MERGE,), shards=None)] if shards else [job]
    return jobs


def _program() -> tuple[str, ...]:
    """This program by its path: a job's shell may have another PATH."""
    script = Path(sys.executable).with_name("cai")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "nemo_aligner_cai.cli")
