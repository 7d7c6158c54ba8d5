# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Who has started this process: nobody in particular, or torchrun, srun or Open MPI's mpirun as one of several.

Upstream's scripts leave that to Lightning (lightning.fabric.plugins.environments), which goes by the same variables
but takes a batch script that never calls srun for the first of the job's tasks: it would wait for the others for ever.
Slurm tells the two apart, as seen with Slurm 22.05:

    sbatch's script                SLURM_PROCID=0, SLURM_NTASKS where tasks were asked for, no SLURM_STEP_ID
    srun's tasks                   SLURM_STEP_ID, and SLURM_STEP_NUM_TASKS equal to SLURM_NTASKS
    sbatch's script, out of srun   the step of that srun, whose SLURM_STEP_NUM_TASKS is not its own SLURM_NTASKS
"""

from __future__ import annotations

from collections.abc import Mapping

from nemo_aligner_cai.errors import UsageError

_NO_SLURM = ("bash", "interactive")
"""Names of jobs which Lightning takes for a person's shell."""


def is_rank(env: Mapping[str, str]) -> bool:
    """Whether this process is one of several that somebody has started.

    Args:
        env: the process's variables.

    Raises:
        UsageError: srun started it in a way that Lightning does not recognise or refuses, after the model is loaded.
    """
    if "RANK" in env:
        return True
    if (tasks := _srun_tasks(env)) > 1:
        if env.get("SLURM_JOB_NAME") in _NO_SLURM:
            raise UsageError(
                f"SLURM_JOB_NAME={env['SLURM_JOB_NAME']}: Lightning takes no job of this name for srun's, and each of "
                f"the {tasks} tasks would work alone; give srun a name: srun --job-name=cai ..."
            )
        if "SLURM_NTASKS_PER_NODE" not in env:
            raise UsageError(f"srun --ntasks={tasks}: Lightning needs srun --nodes=N --ntasks-per-node=M in its place")
        return True
    return env.get("OMPI_COMM_WORLD_SIZE", "1") != "1"


def nodes(env: Mapping[str, str]) -> int:
    """How many machines have processes of this one's job; 1 where nobody has started others."""
    if "RANK" in env:
        world, local = env.get("WORLD_SIZE", ""), env.get("LOCAL_WORLD_SIZE", "")
        # A launcher that does not say how many of its processes are here may have others elsewhere.
        return -(-_count(world) // _count(local or "1"))
    if (tasks := _srun_tasks(env)) > 1:
        return _count(env.get("SLURM_NNODES", str(tasks)))
    return -(-_count(env.get("OMPI_COMM_WORLD_SIZE", "")) // _count(env.get("OMPI_COMM_WORLD_LOCAL_SIZE", "")))


def looks_like_rank(env: Mapping[str, str]) -> bool:
    """Whether Lightning would wait for other tasks that nobody has started: those of a batch script without srun.

    Under torchrun it would not, even where that starts one process only: torchrun's variables come first.
    """
    named = env.get("SLURM_JOB_NAME") not in _NO_SLURM
    return named and env.get("SLURM_NTASKS", "1") != "1" and not is_rank(env)


def check_number(env: Mapping[str, str], *, nodes: int, devices: int) -> None:
    """Raise UsageError where torchrun or srun has started another number of processes than the configuration names.

    Lightning raises at that (`validate_settings` of its environments), in each process, when the model is loaded.

    Args:
        env: the process's variables.
        nodes: `trainer.num_nodes`.
        devices: `trainer.devices`.
    """
    asked = f"trainer.num_nodes={nodes} x trainer.devices={devices}"
    if "RANK" in env:
        world = env.get("WORLD_SIZE", "") if "TORCHELASTIC_RUN_ID" in env else ""
        if world.isdecimal() and int(world) != nodes * devices:
            raise UsageError(
                f"{asked}: torchrun has started {world} processes; give it --nnodes={nodes} "
                f"--nproc-per-node={devices}, or change the two keys"
            )
    elif (tasks := _srun_tasks(env)) > 1:
        started = (env.get("SLURM_NNODES", str(nodes)), env.get("SLURM_NTASKS_PER_NODE", str(devices)))
        if tasks != nodes * devices or started != (str(nodes), str(devices)):
            raise UsageError(
                f"{asked}: srun has started {tasks} tasks, {started[1]} a node on {started[0]} nodes; start it by "
                f"`srun --nodes={nodes} --ntasks-per-node={devices}`, or change the two keys"
            )


def _srun_tasks(env: Mapping[str, str]) -> int:
    """How many tasks the step has that srun started this process in; 0 where srun did not start it."""
    tasks = env.get("SLURM_STEP_NUM_TASKS", "")
    own = "SLURM_STEP_ID" in env and "SLURM_PROCID" in env and tasks == env.get("SLURM_NTASKS")
    return int(tasks) if own and tasks.isdecimal() else 0


def _count(text: str) -> int:
    return max(1, int(text)) if text.isdecimal() else 1
