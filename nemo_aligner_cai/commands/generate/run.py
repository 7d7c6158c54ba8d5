# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Run a generation script: logging, exit code, interruption, clients."""

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from nemo_aligner_cai.commands.common.terminal import log_to_stderr
from nemo_aligner_cai.console import program
from nemo_aligner_cai.models import ModelClient

T = TypeVar("T")


def run_script(
    run: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Run a script and return its exit code; an error becomes one line on standard error."""
    program.begin(argv or ())
    log_to_stderr()

    def work() -> int:
        args = parser.parse_args(argv)
        with resumable(args):
            return run(args)

    return program.main_guard(work, "error")


@contextmanager
def resumable(args: argparse.Namespace) -> Generator[None]:
    """Add the way to resume to a KeyboardInterrupt."""
    try:
        yield
    except KeyboardInterrupt:
        if args.dry_run or args.plan or args.preview is not None:
            raise
        resume = "--resume instead of --overwrite" if args.overwrite else "--resume"
        raise KeyboardInterrupt(f"the same command with {resume} resumes from here") from None


def run_and_close(work: Coroutine[Any, Any, T], *clients: ModelClient) -> T:
    """Run a coroutine and close the clients that it uses."""

    async def run() -> T:
        try:
            return await work
        finally:
            for client in clients:
                await client.close()

    return asyncio.run(run())
