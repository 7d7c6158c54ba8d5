# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The part of `cai run` for Slurm: submit, print and show the jobs of a run."""

import argparse
import os
import sys
from pathlib import Path

from nemo_aligner_cai.commands.common.flag_types import COUNT
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console, table_of, write_line
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.pipeline.config import RunConfig
from nemo_aligner_cai.pipeline.executors import cluster
from nemo_aligner_cai.pipeline.executors.settings import LocalExecutor, SlurmExecutor
from nemo_aligner_cai.pipeline.executors.status import FAILED, status
from nemo_aligner_cai.training.launch.slurm import in_batch_script

_KINDS = ("local", "slurm")


def add_slurm_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai run` that concern Slurm."""
    parser.add_argument("--executor", choices=_KINDS, help="where the steps run (default: executor.kind of CONFIG)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, or the scripts of Slurm's jobs")
    parser.add_argument(
        "--status", action="store_true", help="slurm: show the state of each step, and do nothing else"
    )
    parser.add_argument(
        "--chain",
        type=COUNT,
        default=0,
        metavar="N",
        help="slurm: submit N followers of each job, which resume it, where jobs must not be requeued",
    )


def with_executor(args: argparse.Namespace, config: RunConfig) -> RunConfig:
    """The configuration with the executor that `--executor` chooses; raises UsageError for flags of another one."""
    executor = config.executor
    if args.executor not in (None, executor.kind):
        executor = SlurmExecutor(kind="slurm") if args.executor == "slurm" else LocalExecutor()
    if executor.kind == "local" and args.chain:
        raise UsageError("--chain needs --executor slurm, or executor.kind: slurm in the configuration")
    return config.model_copy(update={"executor": executor})


def is_job(args: argparse.Namespace) -> bool:
    """Return True if this process is the job of one step, and not one that prints or submits jobs."""
    return args.step is not None and not (args.dry_run or args.chain) and in_batch_script(os.environ)


def submit(args: argparse.Namespace, config: RunConfig, executor: SlurmExecutor, overrides: list[str]) -> int:
    """Submit the jobs of a run, or print them."""
    flags = ["--executor", "slurm"] if args.executor else []
    request = cluster.Request(
        config=config,
        executor=executor,
        folder=args.output,
        arguments=(str(args.config.absolute()), *overrides, *flags),
        step=args.step,
        first=args.first,
        chain=args.chain,
    )
    if args.dry_run:
        sys.stdout.write(cluster.print_run(request))
        return 0
    ids = cluster.submit_run(request)
    for step, group in ids.items():
        write_line(f"{step}: job {' '.join(group)}")
    if not ids:
        write_line("all steps are done")
    return 0


def show_status(folder: Path) -> int:
    """Show the state of each step of a run."""
    steps = status(folder)
    rows = [(one.step, one.state, one.job, one.used, "" if one.state == FAILED else one.note) for one in steps]
    open_console().print(table_of(("step", "state", "job", "time", ""), rows))
    # A log's path is longer than a column, and is copied whole from a line.
    for one in steps:
        if one.state == FAILED:
            write_line(f"{one.step}: {one.note}")
    return 0
