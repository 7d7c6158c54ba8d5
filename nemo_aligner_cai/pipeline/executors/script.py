# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The sbatch script of one step: options and one command. What a job does is decided in Python, see `job.py`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor, StepResources
from nemo_aligner_cai.pipeline.executors.sizes import Size

FOLDER = "slurm"
"""The folder of scripts, logs and job ids, in the run's folder."""
_ENVIRONMENT = ("PATH", "HOME", "USER", "LANG", "PYTHONPATH", "SLURM_CONF")
"""Variables that every job gets from the submitting shell."""


@dataclass(frozen=True)
class StepJob:
    """One step as a job.

    Attributes:
        step: the step's name.
        folder: the folder of scripts and logs.
        sizes: of its components.
        command: the command line that runs the step, without a shell.
        shards: tasks of the array that makes the step's calls; None for a job that runs the step, or merges shards.
        variables: names of the environment variables that the run's configuration uses.
    """

    step: str
    folder: Path
    sizes: tuple[Size, ...]
    command: tuple[str, ...]
    shards: int | None = None
    variables: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The job's name, and that of its script."""
        return f"{self.step}_shards" if self.shards else self.step

    @property
    def path(self) -> Path:
        """The script's file."""
        return self.folder / f"{self.name}.sbatch"


def script(job: StepJob, executor: SlurmExecutor, *, requeue: bool) -> str:
    """The text of a job's script.

    Args:
        job: the job.
        executor: the executor's settings.
        requeue: the job is put back into the queue at the end of its wall time, or when a node fails.
    """
    own = executor.steps.get(job.step, StepResources())
    names = dict.fromkeys((*_ENVIRONMENT, *executor.secrets, *job.variables))
    at_once = f"%{own.shards_at_once}" if own.shards_at_once else ""
    first = [
        f"--job-name=cai-{job.name}",
        *([f"--array=0-{job.shards - 1}{at_once}"] if job.shards else []),
        f"--output={shlex.quote(f'{job.folder}/{job.step}-%j.out')}",
        "--open-mode=append",
        f"--signal=B:USR1@{executor.warning_s}",
        f"--export={','.join(names)}",
    ]
    shared = [
        "--requeue" if requeue else "--no-requeue",
        *([f"--account={executor.account}"] if executor.account else []),
        *([f"--partition={partition}"] if (partition := own.partition or executor.partition) else []),
        *([f"--time={time}"] if (time := own.time or executor.time) else []),
        *executor.options,
        *own.options,
    ]
    lines = [f"#SBATCH {option}" for option in first]
    for number, size in enumerate(job.sizes):
        lines += ["#SBATCH hetjob"] if number else []
        lines += [f"#SBATCH {' '.join([*_resources(size, executor), *shared])}"]
    log = shlex.quote(f"{job.folder}/{job.step}")
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            # srun passes on only what --export names, unless it is told otherwise.
            "export SLURM_EXPORT_ENV=ALL",
            *executor.preamble,
            f"exec >> {log}-$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}.log 2>&1",
            f"exec {shlex.join(job.command)}",
            "",
        ]
    )


def _resources(size: Size, executor: SlurmExecutor) -> list[str]:
    gpus = [executor.gpus.format(size.gpus)] if executor.gpus and size.gpus else []
    return [f"--nodes={size.nodes}", f"--ntasks-per-node={size.tasks}", *gpus]


def submission(job: StepJob, after: Sequence[str], *, condition: str = "afterok") -> list[str]:
    """The command line that submits a job. It depends on one of the jobs `after`, which must end by `condition`."""
    dependency = "?".join(f"{condition}:{one}" for one in after)
    depends = [f"--dependency={dependency}", "--kill-on-invalid-dep=yes"] if after else []
    return ["sbatch", "--parsable", *depends, str(job.path)]
