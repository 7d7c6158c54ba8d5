# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher of this process: none, or torchrun, srun or Open MPI's mpirun.

Lightning reads the same variables (lightning.fabric.plugins.environments), but it mistakes a batch script that does
not call srun for the first of the job's tasks, and waits for the others forever. Slurm 22.05 sets:

    sbatch's script                   SLURM_PROCID=0, SLURM_NTASKS if tasks were requested, no SLURM_STEP_ID
    srun's tasks                      SLURM_STEP_ID, and SLURM_STEP_NUM_TASKS equal to SLURM_NTASKS
    sbatch's script, called by srun   the variables of that step, with SLURM_STEP_NUM_TASKS other than SLURM_NTASKS
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nemo_aligner_cai.errors import UsageError

_INTERACTIVE_JOBS = ("bash", "interactive")
"""Job names that Lightning takes for an interactive shell."""
_RANKS = ("SLURM_PROCID", "LOCAL_RANK", "OMPI_COMM_WORLD_RANK")
"""Set by Slurm, Lightning and Open MPI."""


def is_first_rank() -> bool:
    """Return True if this process is the first of its job.

    torchrun's number alone counts if there is one: its first process may be on another node than Slurm's.
    """
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def is_rank(env: Mapping[str, str]) -> bool:
    """Return True if a launcher has started this process as one of several.

    Raises:
        UsageError: srun has started it in a way that Lightning does not recognize, or rejects after the model is
            loaded.
    """
    if "RANK" in env:
        return True
    if (tasks := _srun_tasks(env)) > 1:
        if env.get("SLURM_JOB_NAME") in _INTERACTIVE_JOBS:
            raise UsageError(
                f"SLURM_JOB_NAME={env['SLURM_JOB_NAME']}: Lightning takes a job of this name for an interactive "
                f"shell, and each of the {tasks} tasks would work alone; give srun a name: srun --job-name=cai ..."
            )
        if "SLURM_NTASKS_PER_NODE" not in env:
            raise UsageError(f"srun --ntasks={tasks}: Lightning needs srun --nodes=N --ntasks-per-node=M instead")
        return True
    return env.get("OMPI_COMM_WORLD_SIZE", "1") != "1"


def nodes(env: Mapping[str, str]) -> int:
    """The number of machines of this process's job; 1 if no launcher has started it."""
    if "RANK" in env:
        # Without LOCAL_WORLD_SIZE, each process may be on a machine of its own.
        return -(-_count(env.get("WORLD_SIZE", "")) // _count(env.get("LOCAL_WORLD_SIZE", "")))
    if (tasks := _srun_tasks(env)) > 1:
        return _count(env.get("SLURM_NNODES", str(tasks)))
    return -(-_count(env.get("OMPI_COMM_WORLD_SIZE", "")) // _count(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")))


def is_mistaken_for_rank(env: Mapping[str, str]) -> bool:
    """Return True in a batch script without srun: Lightning would wait for tasks that nobody has started.

    Under torchrun it would not: torchrun's variables take precedence.
    """
    named = env.get("SLURM_JOB_NAME") not in _INTERACTIVE_JOBS
    return named and env.get("SLURM_NTASKS", "1") != "1" and not is_rank(env)


def check_process_count(env: Mapping[str, str], *, nodes: int, devices: int) -> None:
    """Raise UsageError if torchrun or srun has started another number of processes than configured.

    Lightning raises in each process after the model is loaded (`validate_settings` of its environments).
    """
    configured = f"trainer.num_nodes={nodes} x trainer.devices={devices}"
    if "RANK" in env:
        world = env.get("WORLD_SIZE", "") if "TORCHELASTIC_RUN_ID" in env else ""
        if world.isdecimal() and int(world) != nodes * devices:
            raise UsageError(
                f"{configured}: torchrun has started {world} processes; give it --nnodes={nodes} "
                f"--nproc-per-node={devices}, or change the two keys"
            )
    elif (tasks := _srun_tasks(env)) > 1:
        started = (env.get("SLURM_NNODES", str(nodes)), env.get("SLURM_NTASKS_PER_NODE", str(devices)))
        if tasks != nodes * devices or started != (str(nodes), str(devices)):
            raise UsageError(
                f"{configured}: srun has started {tasks} tasks, {started[1]} per node on {started[0]} nodes; use "
                f"`srun --nodes={nodes} --ntasks-per-node={devices}`, or change the two keys"
            )


def _srun_tasks(env: Mapping[str, str]) -> int:
    """The number of tasks in the step of this process; 0 if srun has not started it."""
    tasks = env.get("SLURM_STEP_NUM_TASKS", "")
    in_step = "SLURM_STEP_ID" in env and "SLURM_PROCID" in env and tasks == env.get("SLURM_NTASKS")
    return int(tasks) if in_step and tasks.isdecimal() else 0


def _count(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() else 1
