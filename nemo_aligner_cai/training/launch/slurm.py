# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs Slurm's commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from nemo_aligner_cai.errors import CaiError

_TIMEOUT_S = 60


def output(command: Sequence[str]) -> str:
    """The standard output of one of Slurm's commands.

    Raises:
        CaiError: the command is missing, fails, or gives no answer in a minute; with what Slurm says.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except OSError as error:
        raise CaiError(f"{command[0]}: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise CaiError(f"{command[0]}: no answer in {_TIMEOUT_S} s") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise CaiError(f"{command[0]}: {said}")
    return done.stdout


def in_batch_script(env: Mapping[str, str]) -> bool:
    """Return True in the batch script of a Slurm job, and False in a task that srun has started."""
    return "SLURM_JOB_ID" in env and "SLURM_STEP_ID" not in env


def on_login_node(env: Mapping[str, str]) -> bool:
    """Return True on a machine that submits jobs, outside of any job."""
    return "SLURM_JOB_ID" not in env and shutil.which("sbatch") is not None
