# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Starts jobs as steps of a Slurm job, by srun.

    with srun.steps(Srun()):
        job = jobs.start(...)  # srun --job-name=cai-9f86d081 --overlap ... python -m MODULE ...

This process is then Slurm's batch script: it runs on the first node of the job's first component, and outside of
containers, because srun cannot be called from inside one.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training.launch import reaper, slurm

_log = logging.getLogger(__name__)
ACTOR = 1
"""The component of PPO's actor in a heterogeneous job; component 0 is the critic's."""
LOOPBACK = "127.0.0.1"
_FLAGS = ("--overlap", "--input=none", "--kill-on-bad-exit=1", "--cpu-bind=none")
"""Steps of one job share its CPUs and GPUs, as processes of one machine do. A rank that fails ends the others."""


@dataclass(frozen=True)
class Srun:
    """Settings of the steps of a job.

    Attributes:
        options: further options of srun, such as `--container-image=...`.
        python: the interpreter of the tasks; inside a container it has another path than this process's.
    """

    options: tuple[str, ...] = ()
    python: str = sys.executable


_current: ContextVar[Srun | None] = ContextVar("srun", default=None)


@contextmanager
def steps(settings: Srun) -> Iterator[None]:
    """Start the jobs of the `with` block as steps of this process's Slurm job."""
    token = _current.set(settings)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Srun | None:
    """The settings of the enclosing `steps` block; None if jobs are processes of this machine."""
    return _current.get()


def interpreter() -> str:
    """The path of Python for the programs of this package that are started; a container has its own."""
    settings = current()
    return sys.executable if settings is None else settings.python


def components() -> int:
    """The number of components of this process's Slurm job; more than one in a heterogeneous job."""
    return int(os.environ.get("SLURM_HET_SIZE", "1"))


def new_name() -> str:
    """A name for a step, by which `send_signal` finds it: srun does not tell a step's id."""
    return f"cai-{secrets.token_hex(4)}"


def command(settings: Srun, name: str, program: Sequence[str], *, component: int, tasks: int | None) -> list[str]:
    """The command line that runs a program as a step.

    Args:
        settings: of the job's steps.
        name: from `new_name`.
        program: a command line.
        component: the component of a heterogeneous job.
        tasks: the number of processes, all on this node; None for the component's own nodes and tasks.
    """
    where = [f"--het-group={component}"] if components() > 1 else []
    # The first node of the allocation is this one: the step's servers can listen on the loopback interface.
    size = ["--nodes=1", f"--ntasks={tasks}", f"--ntasks-per-node={tasks}", "--relative=0"] if tasks else []
    task = reaper.command(settings.python, program)
    return ["srun", f"--job-name={name}", *_FLAGS, *where, *size, *settings.options, *task]


def send_signal(name: str, signal_name: str) -> bool:
    """Send a signal to the processes of a step; returns False if there is no such step or no answer from Slurm.

    A signal to srun itself would not do: at SIGTERM, it kills its tasks by SIGKILL.
    """
    try:
        listed = slurm.output(["squeue", "--steps", "--noheader", "--format=%i %j"])
        found = [line.split()[0] for line in listed.splitlines() if line.split()[1:] == [name]]
        if found:
            slurm.output(["scancel", f"--signal={signal_name}", found[0]])
    except CaiError as error:
        _log.warning("%s", error)
        return False
    return bool(found)


def this_host() -> str:
    """The IP address of this node for the other nodes of the job; the loopback address outside of a Slurm job.

    Raises:
        CaiError: Slurm gives no address, or a name that is unknown here.
    """
    node = os.environ.get("SLURMD_NODENAME")
    if current() is None or node is None:
        return LOOPBACK
    shown = slurm.output(["scontrol", "--oneliner", "show", "node", node])
    address = next((word.partition("=")[2] for word in shown.split() if word.startswith("NodeAddr=")), None)
    if address is None:
        raise CaiError(
            f"scontrol show node {node}: no NodeAddr, so the actor cannot be told the address of its critic"
        )
    try:
        # Triton listens on an address, not on a name.
        return socket.gethostbyname(address)
    except OSError as error:
        raise CaiError(f"{address}, Slurm's NodeAddr of {node}, is unknown on that node itself: {error}") from error
