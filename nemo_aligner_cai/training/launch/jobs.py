# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Start training stages and servers as processes of this machine, wait for them, stop them.

    job = jobs.start("nemo_aligner_cai.training.sft", ["model.restore_from_path=base.nemo"], Path("sft.log"))
    jobs.finish(job)

Each job is a process (group) of its own with its own log file. On a machine without CUDA jobs are forked from one
process that has imported NeMo already (`preload`), because the imports take ten seconds of each job; with CUDA,
which does not survive a fork, each job is a new interpreter.
"""

from __future__ import annotations

import http.client
import importlib
import json
import multiprocessing
import multiprocessing.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training.launch.quiet import tail

_POLL_S = 0.2
_ORPHAN_GRACE_S = 20.0
# Below what Linux (32768) and macOS (49152) give away, above what services are usually configured to.
_PORTS = range(15000, 32768)
_PRELOAD = "nemo_aligner_cai.training.launch.preload"


@dataclass(frozen=True)
class Job:
    """A started process.

    Attributes:
        name: the module that runs in it.
        log: the file with its standard output and error.
        pid: its process id, which is its process group's too.
        poll: its exit code, None while it runs; negative for the signal that ended it.
    """

    name: str
    log: Path
    pid: int
    poll: Callable[[], int | None]


def start(
    module: str,
    overrides: Sequence[str],
    log: Path,
    env: Mapping[str, str] | None = None,
    *,
    fork: bool | None = None,
) -> Job:
    """Start a stage module.

    Args:
        module: dotted name of a module with a `STAGE`, e.g. "nemo_aligner_cai.training.sft".
        overrides: its command line: Hydra overrides and flags.
        log: where its output goes; appended to.
        env: variables to set in it besides this process's own.
        fork: whether to fork it from the preloaded process; None: where there is no CUDA device.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if fork is None:
        fork = sys.platform == "linux" and not _cuda()
    return (_fork if fork else _spawn)(module, list(overrides), log, dict(env or {}))


def warm_up() -> None:
    """Begin the imports for later jobs in the background; `start` does so by itself when this was not called."""
    if sys.platform == "linux" and not _cuda():
        _context()
        from multiprocessing import forkserver

        forkserver.ensure_running()


def _cuda() -> bool:
    """Whether the driver is there; asking torch would import it, in a process that needs it for nothing else."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    return context


def _spawn(module: str, overrides: list[str], log: Path, env: dict[str, str]) -> Job:
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *overrides],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | env,
            start_new_session=True,
        )
    return Job(module, log, process.pid, process.poll)


def _fork(module: str, overrides: list[str], log: Path, env: dict[str, str]) -> Job:
    arguments = (module, overrides, str(log.resolve()), dict(os.environ) | env, os.getcwd())
    process = _context().Process(target=_child, args=arguments, name=module)
    process.start()
    assert process.pid is not None  # set by start()
    return Job(module, log, process.pid, lambda: process.exitcode)


def _child(module: str, overrides: list[str], log: str, env: dict[str, str], folder: str) -> None:
    """The body of a forked job: look like `python -m module overrides > log 2>&1` and leave with its exit code."""
    os.setsid()
    threading.Thread(target=_end_with_starter, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.chdir(folder)
    # Not replaced: the preloaded process has set variables for what it imported (see cpu/install.py, E1).
    os.environ.update(env)
    sys.argv = [module, *overrides]
    code = 1
    try:
        if threads := env.get("OMP_NUM_THREADS"):
            import torch

            # torch read the variable when it was imported, before this job had an environment.
            torch.set_num_threads(int(threads))
        from nemo_aligner_cai.training.launch import stage

        code = stage.main(importlib.import_module(module).STAGE)
        if code == 0:
            # As the interpreter does when it exits: it ends Megatron's checkpoint writer and gives back semaphores.
            multiprocessing.util._run_finalizers()  # pyright: ignore[reportAttributeAccessIssue]
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The interpreter's own exit would join threads that only a whole new process can get rid of.
        os._exit(code)


def _end_with_starter() -> None:
    """Wait, in a thread, for the process that started this job to be gone, and end the job then.

    The kernel's parent-death signal would not do: this job's parent is the preloaded process, which lives as long as
    any job does.
    """
    starter = multiprocessing.parent_process()
    if starter is None:
        return
    starter.join()
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        # A server, which has something to put in order; its handler may end this process at once.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_ORPHAN_GRACE_S)
    os.killpg(0, signal.SIGKILL)


def finish(job: Job, timeout_s: float | None = None, *, servers: Sequence[Job] = ()) -> None:
    """Wait for a job that ends by itself, and end what it has left behind.

    Args:
        job: the job.
        timeout_s: how long to wait.
        servers: jobs that it needs, and for which it would wait if they ended.

    Raises:
        CaiError: it failed, a server ended, or it was still running after `timeout_s` and has been stopped; with its
            log's last lines.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        while job.poll() is None:
            if deadline is not None and time.monotonic() > deadline:
                raise CaiError(f"{job.name} took more than {timeout_s:.0f} s and was stopped\n{tail(job.log)}")
            for server in servers:
                require_running(server)
            time.sleep(_POLL_S)
    except BaseException:
        # Ctrl-C above all: the job is in a session of its own and has not heard of it.
        stop(job, grace_s=5.0)
        raise
    _end_group(job)
    if code := job.poll():
        raise CaiError(f"{job.name} failed with exit code {code}\n{tail(job.log)}")


def require_running(job: Job) -> None:
    """Raise CaiError if a server has ended, with its log's last lines."""
    if (code := job.poll()) is not None:
        raise CaiError(f"{job.name} ended with exit code {code} while it was needed\n{tail(job.log)}")


def wait_ready(job: Job, urls: Sequence[str], timeout_s: float) -> None:
    """Wait until a server answers 200 at each of `urls`.

    Raises:
        CaiError: it ended, whoever answers then, or was not ready in time; with its log's last lines.
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
    """Whether a GET of `url` is answered with success within two seconds."""
    return unready(url, 2) is None


def unready(url: str, timeout_s: float) -> Exception | None:
    """Why a GET of `url` is not answered with success within `timeout_s`; None where it is."""
    # Not through http_proxy: the servers are our own, and a proxy would answer in their place.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s):
            return None
    except (OSError, http.client.HTTPException) as error:
        return error


def outputs(url: str, timeout_s: float) -> set[str]:
    """The names of what a Triton server's model at `url` gives; none where it does not say within `timeout_s`."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return {str(output["name"]) for output in json.load(answer)["outputs"]}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return set()


def critic_urls(host: str, port: int) -> list[str]:
    """What answers 200 once a critic server is ready for an actor."""
    names = ("critic_infer", "critic_train", "critic_save")
    return [f"http://{host}:{port}/v2/models/{name}/ready" for name in names]


def free_port() -> int:
    """A port of this machine for a server to listen at, which nobody has at the moment.

    As systems are set up they give none of these to those who ask for any port: the server itself opens dozens of such
    while it starts, one for each of torch's process groups, and one of them could be what it was told to listen at.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port


def stop(job: Job, grace_s: float = 30.0) -> None:
    """End a job and all it has started: ask with SIGTERM, insist with SIGKILL after `grace_s`."""
    for number, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        deadline = time.monotonic() + patience
        if job.poll() is None:
            _signal(os.kill if number == signal.SIGTERM else os.killpg, job.pid, number)
        while job.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    _end_group(job)


def _end_group(job: Job) -> None:
    """End what a finished job left behind: Megatron's checkpoint writer, a Triton server whose parent was killed."""
    _signal(os.killpg, job.pid, signal.SIGKILL)


def _signal(send: Callable[[int, int], None], target: int, number: int) -> None:
    try:
        send(target, number)
    except ProcessLookupError:
        return


@contextmanager
def server(
    module: str,
    overrides: Sequence[str],
    log: Path,
    urls: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 300.0,
) -> Iterator[Job]:
    """A server that is ready inside the `with` block and stopped after it, however the block ends."""
    job = start(module, overrides, log, env)
    try:
        wait_ready(job, urls, timeout_s)
        yield job
    finally:
        stop(job)
