# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The section `executor` of a run's configuration.

executor:
  kind: slurm
  account: my-project
  partition: batch
  time: "04:00:00"
  secrets: [NGC_API_KEY]
  steps:
    6_ppo: {time: "12:00:00"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from nemo_aligner_cai.pipeline.layout import RL_CAI, SL_CAI
from nemo_aligner_cai.sections import Section

_TIME = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}")


def _time(value: Any) -> Any:
    # YAML reads 4:00:00 without quotes as the number 14400, and Slurm a number as minutes.
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError(f"{value!r} is not a time of Slurm's; write it in quotes, such as '04:00:00' or '1-12:00:00'")
    return value


def _gpu_option(value: str) -> str:
    if value.count("{}") != 1:
        raise ValueError("needs {} where the number of GPUs goes, such as '--gres=gpu:{}'")
    return value


def seconds(time: str) -> int:
    """The seconds of one of sbatch's times: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    days, dash, rest = time.rpartition("-")
    fields = [int(field) for field in rest.split(":")]
    # With days or with three fields, the first one is hours; otherwise, it is minutes.
    units = (3600, 60, 1) if dash or len(fields) == 3 else (60, 1)
    return 86400 * int(days or 0) + sum(unit * field for unit, field in zip(units, fields, strict=False))


def _no_array(options: tuple[str, ...]) -> tuple[str, ...]:
    # The merge of a step in shards would be an array, too.
    # sbatch also takes -a0-7, and the start of a long option's name.
    if any(re.match("-a|--ar", option) for option in options):
        raise ValueError("--array is not an option of all jobs; give `shards` to a step, and `shards_at_once`")
    return options


Options = Annotated[tuple[str, ...], AfterValidator(_no_array)]
"""Options of sbatch."""
Time = Annotated[str, BeforeValidator(_time)]
"""A wall time in one of sbatch's forms."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable."""


class LocalExecutor(Section):
    """Run the steps one after another on this machine."""

    kind: Literal["local"] = "local"

    @property
    def container(self) -> None:
        """No image: all programs run in the same environment as this one."""


class Container(Section):
    """The image in which trainers, servers and converters run, by the srun options of pyxis.

    Attributes:
        image: as for `--container-image`.
        mounts: as for `--container-mounts`: the run's folder, models and data, at the same paths as outside.
        python: the interpreter inside, which has this package.
    """

    image: str
    mounts: tuple[str, ...] = ()
    python: str = "python"


class StepResources(Section):
    """The settings of one step that differ from the executor's; nodes and tasks follow from the trainer's settings.

    Attributes:
        partition: in place of the executor's.
        time: in place of the executor's.
        gpus: of each node, in place of one for each task.
        options: further options of sbatch, after the executor's.
        shards: of 2_sl_cai and 4_rl_cai: split the calls among as many jobs, an array, and merge them in another.
        shards_at_once: the jobs of the array that run at once; null for all.
    """

    partition: str | None = None
    time: Time | None = None
    gpus: int | None = Field(default=None, ge=0)
    shards: int | None = Field(default=None, gt=1)
    shards_at_once: int | None = Field(default=None, gt=0)
    options: Options = ()


class SlurmExecutor(Section):
    """Submit each step as a Slurm job that depends on the one before it.

    Attributes:
        account: as for sbatch; null for the user's default.
        partition: as for sbatch; null for the cluster's default.
        time: wall time of a job; null for the partition's default.
        gpus: the option of sbatch that requests GPUs, with {} for their number on each node. Null for a cluster
            without GPUs: trainers then use hardware=cpu.
        options: further options of sbatch, such as `--exclusive`.
        preamble: lines of shell before the command, such as `module load cuda`.
        container: where trainers, servers and converters run; null for the same environment as this program.
        secrets: names of further environment variables that the jobs get from the submitting shell, besides those
            that the configuration uses. Scripts and logs have the names, never the values.
        warning_s: seconds before the end of the wall time at which a job ends its step in order.
        steps: settings of single steps, by the step's name.
    """

    kind: Literal["slurm"]
    account: str | None = None
    partition: str | None = None
    time: Time | None = None
    gpus: Annotated[str, AfterValidator(_gpu_option)] | None = "--gpus-per-node={}"
    options: Options = ()
    preamble: tuple[str, ...] = ()
    container: Container | None = None
    secrets: tuple[Name, ...] = ()
    warning_s: int = Field(default=300, gt=0)
    steps: Mapping[str, StepResources] = Field(default_factory=dict[str, StepResources])

    def shards_of(self, step: str) -> int | None:
        """The number of jobs that make a step's calls; None for one job."""
        return self.steps[step].shards if step in self.steps else None

    @model_validator(mode="after")
    def _check_steps(self) -> SlurmExecutor:
        for name, step in self.steps.items():
            if step.shards is not None and name not in (SL_CAI, RL_CAI):
                raise ValueError(f"steps.{name}.shards: only {SL_CAI} and {RL_CAI} can be split")
            if step.shards_at_once is not None and step.shards is None:
                raise ValueError(f"steps.{name}.shards_at_once has no effect without shards")
        times = {"time": self.time} | {f"steps.{name}.time": step.time for name, step in self.steps.items()}
        for key, time in times.items():
            # Slurm would warn at once, and each start would end before it has done anything.
            if time is not None and seconds(time) <= self.warning_s:
                raise ValueError(f"{key}={time} must be longer than warning_s={self.warning_s} seconds")
        return self


Executor = Annotated[LocalExecutor | SlurmExecutor, Field(discriminator="kind")]
