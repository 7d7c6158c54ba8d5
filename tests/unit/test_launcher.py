# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The launcher of a process, found by the variables of torchrun, mpirun and Slurm 22.05."""

from __future__ import annotations

import pytest

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.checks import ranks

_JOB = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "batch.sh", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
_FIRST = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
_TWO = {"SLURM_NTASKS": "2", "SLURM_NPROCS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_TASKS_PER_NODE": "2"}
_STEP = {"SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
_ALONE = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}
_TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}

BATCH = _JOB | _FIRST | _TWO | {"ENVIRONMENT": "BATCH"}
SRUN = BATCH | _STEP
ENVIRONMENTS: dict[str, tuple[dict[str, str], bool, bool]] = {
    # what set the variables: them, whether the process is a rank, and whether Lightning alone would take it for one
    "nobody": ({}, False, False),
    "torchrun": (_TORCHRUN, True, False),
    "torchrun in a batch script": (BATCH | _TORCHRUN, True, False),
    "mpirun": ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, True, False),
    "mpirun -n 1": ({"OMPI_COMM_WORLD_SIZE": "1"}, False, False),
    "sbatch --ntasks-per-node=2": (BATCH, False, True),
    "sbatch --nodes=1": (_JOB | _FIRST | {"SLURM_TASKS_PER_NODE": "1"}, False, False),
    "srun in a batch script": (SRUN, True, False),
    "srun, the second task": (SRUN | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1"}, True, False),
    "srun --ntasks=1": (_JOB | _FIRST | _ALONE, False, False),
    "srun --ntasks=1 --pty bash": (_JOB | _FIRST | _ALONE | {"SLURM_JOB_NAME": "bash"}, False, False),
    "sbatch --ntasks=2 out of srun --ntasks=1": (BATCH | _ALONE | {"SLURM_NTASKS": "2"}, False, True),
    "salloc --ntasks=2": (_JOB | _TWO | {"SLURM_JOB_NAME": "interactive"}, False, False),
}


@pytest.mark.parametrize(
    ("env", "first"),
    [
        ({}, True),
        (SRUN, True),
        (SRUN | {"SLURM_PROCID": "1"}, False),
        ({"LOCAL_RANK": "1"}, False),
        # torchrun numbers the nodes by their names: node10 is before node9.
        (SRUN | {"SLURM_PROCID": "1", "RANK": "0", "LOCAL_RANK": "0"}, True),
        (SRUN | {"RANK": "8", "LOCAL_RANK": "0"}, False),
    ],
)
def test_one_process_is_the_first(env: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert ranks.is_first_rank() == first


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_rank_is_told_from_a_script(name: str) -> None:
    env, rank, like_one = ENVIRONMENTS[name]
    assert ranks.is_rank(env) is rank
    assert ranks.is_mistaken_for_rank(env) is like_one


@pytest.mark.parametrize("job", ["bash", "interactive"])
def test_srun_in_a_shell_of_an_allocation_needs_a_name(job: str) -> None:
    with pytest.raises(UsageError, match=rf"^SLURM_JOB_NAME={job}: .*srun --job-name=cai"):
        ranks.is_rank(SRUN | {"SLURM_JOB_NAME": job})


def test_tasks_without_their_number_on_a_node_are_refused() -> None:
    env = {name: value for name, value in SRUN.items() if name != "SLURM_NTASKS_PER_NODE"}
    with pytest.raises(UsageError, match=r"^srun --ntasks=2: .*--nodes=N --ntasks-per-node=M"):
        ranks.is_rank(env)


@pytest.mark.parametrize(
    ("env", "nodes", "devices", "message"),
    [
        (SRUN, 1, 2, ""),
        (SRUN, 1, 8, r"2 tasks, 2 per node on 1 nodes; .*`srun --nodes=1 --ntasks-per-node=8`"),
        (SRUN, 2, 1, r"^trainer\.num_nodes=2 x trainer\.devices=1: srun has started 2 tasks"),
        (BATCH, 1, 8, ""),
        (_TORCHRUN, 1, 2, ""),
        (_TORCHRUN, 1, 8, r"torchrun has started 2 processes; give it --nnodes=1 --nproc-per-node=8"),
        # Who sets RANK without torchrun leaves the rest to Lightning.
        ({"RANK": "0", "WORLD_SIZE": "1"}, 1, 8, ""),
        ({}, 1, 8, ""),
    ],
)
def test_the_number_of_processes_is_compared(env: dict[str, str], nodes: int, devices: int, message: str) -> None:
    if not message:
        ranks.check_process_count(env, nodes=nodes, devices=devices)
        return
    with pytest.raises(UsageError, match=message):
        ranks.check_process_count(env, nodes=nodes, devices=devices)


@pytest.mark.parametrize(
    ("env", "nodes"),
    [
        ({}, 1),
        (BATCH, 1),
        (SRUN, 1),
        (SRUN | {"SLURM_NNODES": "2"}, 2),
        (_TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}, 1),
        (_TORCHRUN | {"LOCAL_WORLD_SIZE": "1"}, 2),
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2),
    ],
)
def test_c2_a_job_is_on_one_machine_or_on_several(env: dict[str, str], nodes: int) -> None:
    assert ranks.nodes(env) == nodes
