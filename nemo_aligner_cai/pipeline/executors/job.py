# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The process of a Slurm job, which runs one step: its trainers and servers are steps of the job.

At SIGUSR1, some minutes before the end of the wall time, the step is stopped in order and the job is put back into the
queue; its next start resumes from checkpoints and journals. Where requeueing is not allowed, the job fails, and its
follower resumes (`--chain`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import NoReturn

from nemo_aligner_cai.engine.shards import JOURNAL_SUFFIX, Shard
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import read_json, write_json
from nemo_aligner_cai.pipeline.executors.script import FOLDER
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.pipeline.steps.context import Calls
from nemo_aligner_cai.training.launch import log_folder, slurm, srun

_TASK = "SLURM_ARRAY_TASK_ID"
MOST_STARTS = 3
"""Starts of a step without progress before it is given up."""


def calls_of(step: str, executor: SlurmExecutor, env: Mapping[str, str]) -> Calls:
    """The calls that this job makes for a step: those of its shard, none if it merges shards, or else all."""
    shards = executor.shards_of(step)
    if shards is None:
        return "all"
    return Shard(int(env[_TASK]), shards) if _TASK in env else "none"


def run(step: str, work: Callable[[], object], executor: SlurmExecutor, folder: Path) -> None:
    """Run a step, or a shard of it, in this Slurm job.

    Raises:
        CaiError: the step failed, made no progress in `MOST_STARTS` starts, or cannot be requeued.
    """
    warnings: list[int] = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        warnings.append(number)
        raise KeyboardInterrupt("the wall time ends")

    signal.signal(signal.SIGUSR1, stop)
    count_start(step, folder)
    container = executor.container
    settings = srun.Srun()
    if container is not None:
        mounts = [f"--container-mounts={','.join(container.mounts)}"] if container.mounts else []
        settings = srun.Srun((f"--container-image={container.image}", *mounts), container.python)
    try:
        with srun.steps(settings):
            work()
    except KeyboardInterrupt:
        # Ctrl-C and SIGTERM raise it too.
        if not warnings:
            raise
        _requeue(step)


def count_start(step: str, folder: Path) -> None:
    """Count a start of a step; raises CaiError if the starts before it made no progress.

    Each task of an array counts its own starts. Progress of any task counts, which ends with the last one at work.
    """
    task = f".{os.environ[_TASK]}" if _TASK in os.environ else ""
    path = folder / FOLDER / f"{step}{task}.starts.json"
    progress = _progress(folder / step)
    earlier = read_json(path) if path.is_file() else None
    starts = earlier["starts"] + 1 if earlier and earlier["progress"] == progress else 1
    if starts > MOST_STARTS:
        raise CaiError(
            f"{step}: {MOST_STARTS} starts without progress: no reply was added to a journal, and no checkpoint was "
            f"saved; fix the cause, which the logs in {path.parent} show, and submit the run again"
        )
    write_json(path, {"starts": starts, "progress": progress}, overwrite=True)


def forget_starts(step: str, folder: Path) -> None:
    """Count the starts of a step from zero again."""
    for path in (folder / FOLDER).glob(f"{step}.*starts.json"):
        path.unlink()


def _progress(folder: Path) -> dict[str, int | None]:
    """The size of each journal and the step of each checkpoint of a step."""
    found: dict[str, int | None] = {
        str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob(f"*{JOURNAL_SUFFIX}"))
    }
    return found | {name: log_folder.last_step(folder / name) for name in ("train", "critic")}


def _requeue(step: str) -> None:
    env = os.environ
    # One task of an array has the array's own id, by which Slurm would requeue all of them.
    job = f"{env['SLURM_ARRAY_JOB_ID']}_{env[_TASK]}" if _TASK in env else env["SLURM_JOB_ID"]
    try:
        slurm.output(["scontrol", "requeue", job])
    except CaiError as error:
        raise CaiError(
            f"{step}: stopped before the end of the wall time, and Slurm does not requeue job {job} ({error}); the "
            "next job of --chain, or the next submission, resumes it"
        ) from error
