# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The state of each step of a run: from the run's folder and from Slurm's queue, without accounting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import read_json
from nemo_aligner_cai.pipeline.executors.script import FOLDER
from nemo_aligner_cai.pipeline.executors.submit import JobIds, queued, submitted
from nemo_aligner_cai.pipeline.records import RUN_RECORD, current_steps, read_origin

FAILED = "failed"


@dataclass(frozen=True)
class StepStatus:
    """The state of one step.

    Attributes:
        step: its name.
        state: "done", "failed", "not submitted", "outdated" if it was done with earlier settings, or a state of Slurm,
            such as "pending" and "running".
        job: the id of its newest job in the queue, or of its last one; empty if it was not submitted.
        used: the running time of that job.
        note: the reason for which it waits, the nodes on which it runs, or the log that tells why it failed.
    """

    step: str
    state: str
    job: str = ""
    used: str = ""
    note: str = ""


def status(folder: Path) -> list[StepStatus]:
    """The state of each step of the run in a folder.

    Raises:
        UsageError: there is no run in the folder.
        CaiError: Slurm does not answer.
    """
    jobs, queue = submitted(folder / FOLDER), queued(folder / FOLDER)
    found: list[StepStatus] = []
    planned = _planned(folder, jobs)
    origins = {step: origin for step in planned if (origin := read_origin(folder / step))}
    current = current_steps(planned, origins)
    for step in planned:
        ids = jobs.get(step, [])
        waiting = [one for one in ids if one in queue]
        if step in current:
            found.append(StepStatus(step, "done", ids[-1] if ids else ""))
        elif waiting:
            found.append(StepStatus(step, queue[waiting[0]][0], waiting[0], *queue[waiting[0]][1:]))
        elif step in origins:
            found.append(StepStatus(step, "outdated", ids[-1] if ids else ""))
        elif ids:
            found.append(StepStatus(step, FAILED, ids[-1], note=_last_log(folder / FOLDER, step)))
        else:
            found.append(StepStatus(step, "not submitted"))
    return found


def _planned(folder: Path, jobs: JobIds) -> Mapping[str, str | None]:
    """All steps of a run that has begun, with their settings hashes, or those that were submitted."""
    record = folder / RUN_RECORD
    if record.is_file():
        return {step["name"]: step.get("settings_hash") for step in read_json(record)["steps"]}
    if not jobs:
        raise UsageError(f"{folder}: no run was started here, and no jobs were submitted")
    return dict.fromkeys(jobs)


def _last_log(folder: Path, step: str) -> str:
    logs = sorted(folder.glob(f"{step}-*.log"), key=lambda path: path.stat().st_mtime)
    if logs:
        return f"see {logs[-1]}"
    return f"cancelled before it ran, or no node could write to {folder}"
