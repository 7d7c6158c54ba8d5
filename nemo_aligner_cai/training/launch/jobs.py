# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Starts training stages and servers as processes of this machine, waits for them, and stops them.

    job = jobs.start("nemo_aligner_cai.training.sft", ["model.restore_from_path=base.nemo"], Path("sft.log"))
    jobs.finish(job)

Each job has its own process group and log file. On a machine without CUDA, jobs are forked from one process that has
already imported NeMo (`preload`), which saves ten seconds of imports per job. CUDA does not survive a fork: with it,
each job is a new interpreter. Inside `srun.steps`, jobs are steps of a Slurm job.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training.launch import forked, srun, tether
from nemo_aligner_cai.training.launch.quiet import tail

_POLL_S = 0.2
# Below the ephemeral ports of Linux (32768) and macOS (49152), above most services.
_PORTS = range(15000, 32768)
# Ignores http_proxy: a proxy cannot reach servers of this machine, and would answer in their place.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Job:
    """A started process.

    Attributes:
        name: the module or program that runs in it.
        log: the file with its standard output and error.
        pid: its process id and process group.
        poll: returns its exit code; None while it runs, negative if a signal ended it.
        step: the name of its Slurm step, whose srun is the process; None for a process of this machine.
    """

    name: str
    log: Path
    pid: int
    poll: Callable[[], int | None]
    step: str | None = None


def start(
    module: str,
    overrides: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    *,
    fork: bool | None = None,
    component: int = 0,
    tasks: int | None = None,
) -> Job:
    """Start a stage module.

    Args:
        module: dotted name of a module with a `STAGE`, e.g. "nemo_aligner_cai.training.sft".
        overrides: its command line: Hydra overrides and flags.
        log: its output is appended to this file.
        env: environment variables to add to those of this process.
        fork: fork it from the preloaded process; by default on Linux without a CUDA device.
        component: in a heterogeneous Slurm job, the component in which it runs.
        tasks: in a Slurm job, the number of its processes, on this node; None for all of the component.
    """
    if fork is None:
        fork = sys.platform == "linux" and srun.current() is None and not has_gpu()
    if fork:
        log.parent.mkdir(parents=True, exist_ok=True)
        return Job(module, log, *forked.start(module, list(overrides), log, dict(env or {})))
    command = [srun.interpreter(), "-m", module, *overrides]
    return start_command(module, command, log, env, component=component, tasks=tasks)


def start_command(
    name: str,
    command: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    *,
    component: int = 0,
    tasks: int | None = None,
) -> Job:
    """Start a program, such as a server that is not part of this package; see `start`.

    `start` describes the arguments; `name` is for messages. With a container, the command is run inside it:
    `srun.interpreter` is its Python, and a name without a folder is found on its PATH.
    """
    step, added = None, dict(env or {})
    if (settings := srun.current()) is None:
        command = tether.command(command)
    else:
        step = srun.new_name()
        command = srun.command(settings, step, command, component=component, tasks=tasks)
        # Lightning derives the port from the job's id, which the steps and components of a job share.
        added = {"MASTER_PORT": str(free_port())} | added
        if srun.components() > 1:
            # Each component has its own GPUs; the numbers are those of one machine that the jobs share.
            added.pop("CUDA_VISIBLE_DEVICES", None)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | added,
            start_new_session=True,
        )
    return Job(name, log, process.pid, process.poll, step)


def warm_up() -> None:
    """Start the preloaded process in the background, ahead of the first job."""
    if sys.platform == "linux" and not has_gpu():
        forked.warm_up()


def has_gpu() -> bool:
    """True if NVIDIA's driver is loaded. Querying torch would import it, and this process does not need it."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def finish(
    job: Job, timeout_s: float | None = None, *, servers: Sequence[Job] = (), watch: Callable[[], None] = lambda: None
) -> None:
    """Wait for a job to end, and end the processes that it leaves behind.

    It is stopped after `timeout_s`. `watch` is called several times a second; the job depends on `servers`.

    Raises:
        CaiError: the job failed or timed out, or a server ended; with the last lines of the log.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while job.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise CaiError(f"{job.name} took more than {timeout_s:.0f} s and was stopped\n{tail(job.log)}")
            for server in servers:
                require_running(server)
            watch()
            time.sleep(_POLL_S)
    except BaseException:
        # For example Ctrl-C, which does not reach the job's own session.
        stop(job, grace_s=5.0)
        raise
    _end_group(job)
    if code := job.poll():
        raise CaiError(f"{job.name} failed with exit code {code}\n{tail(job.log)}")


def require_running(job: Job) -> None:
    """Raise CaiError with the last lines of the log if a server has ended."""
    if (code := job.poll()) is not None:
        raise CaiError(f"{job.name} ended with exit code {code} while it was needed\n{tail(job.log)}")


def wait_ready(job: Job, urls: Sequence[str], timeout_s: float) -> None:
    """Wait until a server answers 200 at each of `urls`.

    Raises:
        CaiError: it ended, even if another process answers, or timed out; with the last lines of its log.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        ready = all(answers(url) for url in urls)
        if (code := job.poll()) is not None:
            other = "; another process's server answers at its address" if ready else ""
            raise CaiError(f"{job.name} ended with exit code {code} before it was ready{other}\n{tail(job.log)}")
        if ready:
            return
        if time.monotonic() > deadline:
            raise CaiError(f"{job.name} was not ready after {timeout_s:.0f} s\n{tail(job.log)}")
        time.sleep(_POLL_S)


def answers(url: str) -> bool:
    """True if a GET of `url` succeeds within two seconds."""
    return unready(url, 2) is None


def unready(url: str, timeout_s: float) -> Exception | None:
    """The error of a GET of `url`; None if it succeeds within `timeout_s`."""
    try:
        with _OPENER.open(url, timeout=timeout_s):
            return None
    except (OSError, http.client.HTTPException) as error:
        return error


def outputs(url: str, timeout_s: float) -> set[str]:
    """The output names of a Triton server's model at `url`; empty on any failure within `timeout_s`."""
    try:
        with _OPENER.open(url, timeout=timeout_s) as answer:
            return {str(output["name"]) for output in json.load(answer)["outputs"]}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return set()


def critic_urls(host: str, port: int) -> list[str]:
    """The URLs that answer 200 once a critic server is ready for an actor."""
    names = ("critic_infer", "critic_train", "critic_save")
    return [f"http://{host}:{port}/v2/models/{name}/ready" for name in names]


def visible_gpus(numbers: Sequence[int]) -> dict[str, str]:
    """The environment variable that limits a job to some GPUs of this machine; none for no numbers."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers))} if numbers else {}


def free_port() -> int:
    """A free port for a server.

    It is outside the ephemeral range: while it starts, the server opens dozens of ephemeral ports for torch's process
    groups, and one of them could otherwise be the port that it was told to listen on.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


def stop(job: Job, grace_s: float = 30.0) -> None:
    """End a job and its children: SIGTERM, then SIGKILL after `grace_s`."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + wait_s
        if job.poll() is None:
            _send(job, number)
        while job.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    _end_group(job)


def _send(job: Job, number: signal.Signals) -> None:
    if job.step is not None and srun.send_signal(job.step, number.name.removeprefix("SIG")):
        return
    with suppress(ProcessLookupError):
        (os.kill if number == signal.SIGTERM else os.killpg)(job.pid, number)


def _end_group(job: Job) -> None:
    """End the processes that a job left: Megatron's checkpoint writer, a Triton server whose parent was killed."""
    with suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)


@contextmanager
def server(
    module: str,
    overrides: Sequence[str],
    log: Path,
    urls: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
    tasks: int | None = None,
) -> Iterator[Job]:
    """A server that is ready inside the `with` block and stopped at its end; see `start`."""
    with stopping(start(module, overrides, log, env, tasks=tasks)) as job:
        wait_ready(job, urls, timeout_s)
        yield job


@contextmanager
def stopping(job: Job) -> Iterator[Job]:
    """Stop a job, and what it has started, at the end of the `with` block."""
    try:
        yield job
    finally:
        stop(job)
