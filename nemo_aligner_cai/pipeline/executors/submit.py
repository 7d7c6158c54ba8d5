# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Submits the steps of a run as Slurm jobs, each after the one before it.

Output: ``<run>/slurm/<step>.sbatch``, and ``<run>/slurm/jobs.json`` with the ids of each step's jobs, the first one
        and those that follow it in a chain: {"3_sft": ["81"], "4_rl_cai": ["82"]}. A step in shards has two scripts,
        the array's ``<step>_shards.sbatch`` and the merge's, and both ids.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import read_json, write_json
from nemo_aligner_cai.pipeline.executors.script import StepJob, script, submission
from nemo_aligner_cai.pipeline.executors.settings import SlurmExecutor
from nemo_aligner_cai.training.launch import slurm

JobIds = dict[str, list[str]]
_IDS = "jobs.json"
_PROBE = "probe"
_PROBE_S = 15
_VISIBLE, _HIDDEN = "visible", "hidden"
_log = logging.getLogger(__name__)


def check(executor: SlurmExecutor) -> None:
    """Check the submitting machine and its environment.

    Raises:
        UsageError: Slurm's commands or a secret's variable are missing.
    """
    if shutil.which("sbatch") is None:
        raise UsageError(
            "executor slurm: there is no sbatch on PATH; run this command on a login node of the cluster, or print "
            "what it would submit by --dry-run"
        )
    if missing := [name for name in executor.secrets if name not in os.environ]:
        raise UsageError(f"executor.secrets: {', '.join(missing)} not set; export the value before submitting")


def require_none_queued(folder: Path) -> None:
    """Raise UsageError if jobs of an earlier submission are in the queue; `folder` is that of scripts and logs."""
    waiting = queued(folder)
    known = [one for group in submitted(folder).values() for one in group if one in waiting]
    if known:
        raise UsageError(
            f"{folder.parent}: jobs of this run are in the queue: {' '.join(known)}; look at them by --status, or end "
            f"them by scancel {' '.join(known)}"
        )


def prepare(jobs: Sequence[StepJob], executor: SlurmExecutor, *, chain: int) -> None:
    """Write the scripts, and ask Slurm whether it would accept them.

    All jobs have the same folder; `chain` is as for `submit`.

    Raises:
        UsageError: the nodes do not see the run's folder, or Slurm refuses a job.
    """
    folder = jobs[0].folder
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        job.path.write_text(script(job, executor, requeue=not chain), encoding="utf-8")
        _test(job)
    _require_visible(folder, jobs[0], executor)


def submit(jobs: Sequence[StepJob], *, chain: int) -> JobIds:
    """Submit prepared jobs, each after the one before it.

    Args:
        jobs: the jobs.
        chain: the number of followers of each job, which continue what it could not finish, for sites that do not
            allow requeueing; 0 to requeue it instead.

    Returns:
        The ids of each step's jobs, which are also written to ``jobs.json``.

    Raises:
        CaiError: a submission failed; those before it are cancelled.
    """
    ids: JobIds = {}
    try:
        last: list[str] = []
        for job in jobs:
            own = [_submitted(job, last)]
            ids[job.step] = [*ids.get(job.step, []), *own]
            for _ in range(chain):
                own.append(_submitted(job, own[-1:], condition="afternotok"))
                ids[job.step].append(own[-1])
            last = own
    except BaseException:
        if known := [one for group in ids.values() for one in group]:
            slurm.output(["scancel", *known])
        raise
    folder = jobs[0].folder
    write_json(folder / _IDS, submitted(folder) | ids, overwrite=True)
    return ids


def printed(jobs: Sequence[StepJob], executor: SlurmExecutor, *, chain: int) -> str:
    """The scripts and the commands that submit them, to paste into a shell; arguments as for `submit`."""
    lines = [shlex.join(["mkdir", "-p", str(jobs[0].folder)])]
    last: list[str] = []
    for number, job in enumerate(jobs, 1):
        text = script(job, executor, requeue=not chain)
        lines += ["", f"cat > {shlex.quote(str(job.path))} << 'SCRIPT'", f"{text}SCRIPT"]
        names = [f"job{number}", *(f"job{number}_{follower}" for follower in range(1, chain + 1))]
        lines.append(_assignment(names[0], submission(job, last)))
        last = [f"${names[0]}"]
        for name in names[1:]:
            lines.append(_assignment(name, submission(job, last[-1:], condition="afternotok")))
            last.append(f"${name}")
    return "\n".join(lines) + "\n"


def submitted(folder: Path) -> JobIds:
    """The ids in a folder's ``jobs.json``; empty if nothing was submitted."""
    path = folder / _IDS
    return cast(JobIds, read_json(path)) if path.is_file() else {}


def queued(folder: Path) -> dict[str, tuple[str, str, str]]:
    """Id -> (state, time used, reason or nodes) of this user's jobs in the queue."""
    found: dict[str, tuple[str, str, str]] = {}
    if not submitted(folder):
        return found
    for line in slurm.output(["squeue", "--me", "--noheader", "--format=%i|%T|%M|%R"]).splitlines():
        job, state, used, where = line.split("|", 3)
        # The components of a heterogeneous job are 12+0 and 12+1, the tasks of an array 13_0 and 13_[1-7].
        base = re.split(r"[+_]", job)[0]
        if base not in found or state == "RUNNING":
            found[base] = state.lower(), used, where
    return found


def _assignment(name: str, words: Sequence[str]) -> str:
    # The ids of earlier jobs are the shell's variables.
    return f"{name}=$({' '.join(word if word.startswith('--dependency=') else shlex.quote(word) for word in words)})"


def _submitted(job: StepJob, after: Sequence[str], *, condition: str = "afterok") -> str:
    # On a federation of clusters, the id is followed by the cluster's name.
    return slurm.output(submission(job, after, condition=condition)).strip().partition(";")[0]


def _test(job: StepJob) -> None:
    try:
        slurm.output(["sbatch", "--test-only", str(job.path)])
    except CaiError as error:
        raise UsageError(
            f"step {job.step}: Slurm refuses the job: {error}; see executor.partition, account, time, options and the "
            f"nodes and tasks in {job.path}"
        ) from error


def _require_visible(folder: Path, first: StepJob, executor: SlurmExecutor) -> None:
    """Raise UsageError if a compute node does not see the folder.

    A short step reads a file of random content there. If no node is free for it, the first job of the run decides: it
    cannot open its log, fails, and the jobs after it are cancelled.
    """
    probe, content = folder / _PROBE, secrets.token_hex(8)
    probe.write_text(content, encoding="utf-8")
    own = executor.steps.get(first.step)
    partition = (own.partition if own is not None else None) or executor.partition
    where = [
        *([f"--account={executor.account}"] if executor.account else []),
        *([f"--partition={partition}"] if partition else []),
    ]
    test = f'if [ "$(cat "$0" 2> /dev/null)" = {content} ]; then echo {_VISIBLE}; else echo {_HIDDEN} $(hostname); fi'
    words = ["srun", "--job-name=cai-probe", "--ntasks=1", "--time=1", f"--immediate={_PROBE_S}", "--chdir=/", *where]
    try:
        said = slurm.output([*words, "/bin/sh", "-c", test, str(probe)])
    except CaiError as error:
        _log.warning("not tested whether the nodes see %s: %s; the first job will tell", folder.parent, error)
        return
    finally:
        probe.unlink()
    if said.split()[:1] == [_HIDDEN]:
        raise UsageError(
            f"{folder.parent}: {said.split()[-1]} does not see this folder; give an --output on a file system that "
            "all nodes share"
        )
