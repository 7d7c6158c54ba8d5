# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Run a generation script: logging, exit code, interruption, results."""

import argparse
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from nemo_aligner_cai.commands.common.terminal import log_to_stderr
from nemo_aligner_cai.commands.generate import display, store_flags
from nemo_aligner_cai.commands.generate.shard_flags import missing_calls_error
from nemo_aligner_cai.console import program
from nemo_aligner_cai.engine.shards import CallsMissing
from nemo_aligner_cai.stages.report import StageReport


def run_script(
    generate: Callable[[argparse.Namespace], StageReport | None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    name: str,
) -> int:
    """Run a script, show what was written and return the exit code; an error becomes one line on standard error.

    Args:
        generate: the script's work; returns None if the flags only ask to look.
        parser: the script's flags.
        argv: the command line without the program's name; None for the process's own.
        name: the generator's name in ``cai data``.
    """

    def work() -> int:
        log_to_stderr()
        args = parser.parse_args(argv)
        try:
            with store_flags.local_inputs(args), resumable(args):
                report = generate(args)
                if report is not None:
                    display.show_report(report, store_flags.output_of(args), dry_run=args.dry_run)
                    store_flags.upload_files(args, report.files, report.manifest)
        except CallsMissing as missing:
            raise missing_calls_error(missing, name, sys.argv[1:] if argv is None else argv) from missing
        return 0

    return program.main_guard(work, argv or ())


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
