# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Forks stages from one process that has already imported NeMo (`preload`), on Linux without CUDA; see `jobs`."""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

_ORPHAN_GRACE_S = 20.0
_PRELOAD = "nemo_aligner_cai.training.launch.preload"


def warm_up() -> None:
    """Start the preloaded process in the background, ahead of the first job."""
    _context()
    from multiprocessing import forkserver

    forkserver.ensure_running()


def start(module: str, overrides: list[str], log: Path, env: dict[str, str]) -> tuple[int, Callable[[], int | None]]:
    """Fork a stage module; arguments as for `jobs.start`.

    Returns:
        The process id, which is also that of its group, and a function that returns the exit code or None.
    """
    arguments = (module, overrides, str(log.resolve()), dict(os.environ) | env, os.getcwd())
    process = _context().Process(target=_child, args=arguments, name=module)
    process.start()
    assert process.pid is not None  # set by start()
    return process.pid, lambda: process.exitcode


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD])
    return context


def _child(module: str, overrides: list[str], log: str, env: dict[str, str], folder: str) -> None:
    """The body of a forked job: behaves like `python -m module overrides > log 2>&1`."""
    os.setsid()
    threading.Thread(target=_end_with_starter, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.chdir(folder)
    # Updated, not replaced: the preloaded process has set variables for its imports (see cpu/install.py, E1).
    os.environ.update(env)
    sys.argv = [module, *overrides]
    code = 1
    try:
        if threads := env.get("OMP_NUM_THREADS"):
            import torch

            # torch read the variable at import, before this job had its environment.
            torch.set_num_threads(int(threads))
        from nemo_aligner_cai.training.launch import stage_main

        code = stage_main.main(importlib.import_module(module).STAGE)
        if code == 0:
            # Like the interpreter at exit: ends Megatron's checkpoint writer and releases semaphores.
            multiprocessing.util._run_finalizers()  # pyright: ignore[reportAttributeAccessIssue]
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # A normal exit would wait for threads that never end.
        os._exit(code)


def _end_with_starter() -> None:
    """Wait, in a thread, for the process that started this job to end, then end the job.

    The kernel's parent-death signal does not help: the parent of this job is the preloaded process, which lives as
    long as any job.
    """
    starter = multiprocessing.parent_process()
    if starter is None:
        return
    starter.join()
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        # A server shuts down cleanly; its handler may end this process at once.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_ORPHAN_GRACE_S)
    os.killpg(0, signal.SIGKILL)
