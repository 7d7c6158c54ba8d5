# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai run CONFIG`, and the parts that `cai quickstart` shares: the seven steps in one folder."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands import run_slurm
from nemo_aligner_cai.commands.common.flag_types import TRAINING_SEED
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import log_to_stderr, open_console
from nemo_aligner_cai.engine.shards import Shard
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import read_jsonl
from nemo_aligner_cai.files.output_paths import refuse_object
from nemo_aligner_cai.pipeline import layout
from nemo_aligner_cai.pipeline.config import RunConfig, load_run_config
from nemo_aligner_cai.pipeline.dry_run import commands, dry_run_checks, not_checked
from nemo_aligner_cai.pipeline.executors import job
from nemo_aligner_cai.pipeline.executors.settings import Executor, LocalExecutor
from nemo_aligner_cai.pipeline.metrics import table
from nemo_aligner_cai.pipeline.run import Pipeline
from nemo_aligner_cai.pipeline.step_cache import StepMissing
from nemo_aligner_cai.report.report import REPORT


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai run`."""
    parser.examples = (
        "cai run examples/nlp/cai/mistral_7b.yaml --output runs/mistral_7b --dry-run",
        "cai run examples/nlp/cai/mistral_7b_slurm.yaml --output runs/mistral_7b --status",
    )
    parser.add_argument("config", type=Path, help="a YAML file like nemo_aligner_cai/tiny/quickstart.yaml")
    add_run_arguments(parser, output=None)
    run_slurm.add_slurm_arguments(parser)


def add_run_arguments(parser: Parser, *, output: Path | None) -> None:
    """Declare the arguments that `cai quickstart` shares."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values to replace in the configuration")
    parser.add_argument("--output", type=Path, default=output, required=output is None, help="the run's folder")
    parser.add_argument("--seed", type=TRAINING_SEED, help="short for the override seed=N (default: as configured)")
    part = parser.add_mutually_exclusive_group()
    part.add_argument(
        "--from",
        dest="first",
        metavar="STEP",
        help="repeat this step and all later ones (default: unfinished steps)",
    )
    part.add_argument("--step", metavar="STEP", help="run this step only; those before it must be done (default: all)")


def run(args: argparse.Namespace) -> int:
    """Run or resume the pipeline, here or as jobs of a Slurm cluster."""
    _begin(args)
    if args.status:
        return run_slurm.show_status(args.output)
    overrides = _overrides(args)
    config = run_slurm.with_executor(args, load_run_config(args.config, overrides))
    executor = config.executor
    _require_packages(executor, dry_run=args.dry_run)
    if isinstance(executor, LocalExecutor):
        return _print_commands(args, config) if args.dry_run else run_here(args, config)
    if not run_slurm.is_job(args):
        return run_slurm.submit(args, config, executor, overrides)
    with _resumable(args):
        calls = job.calls_of(args.step, executor, os.environ)
        pipeline = Pipeline(config, args.output, calls)
        work = pipeline.run_shard if isinstance(calls, Shard) else pipeline.run_step
        job.run(args.step, lambda: work(args.step), executor, args.output)
    return 0


def _print_commands(args: argparse.Namespace, config: RunConfig) -> int:
    checks = dry_run_checks()
    pipeline = Pipeline(config, args.output, checks=checks)
    sys.stdout.write(commands(pipeline, _command(args), only=args.step, first=args.first) + not_checked(checks))
    return 0


def run_all(args: argparse.Namespace) -> int:
    """Run or resume the pipeline here."""
    _begin(args)
    config = load_run_config(args.config, _overrides(args))
    _require_packages(LocalExecutor())
    return run_here(args, config)


def run_here(args: argparse.Namespace, config: RunConfig) -> int:
    """Run the steps of a run in this process, and show its results."""
    with _resumable(args):
        pipeline = Pipeline(config, args.output)
        if args.step:
            pipeline.run_step(args.step)
            return 0
        metrics = pipeline.run(args.first)
    _show(args.output, metrics)
    return 0


def _begin(args: argparse.Namespace) -> None:
    refuse_object(args.output)
    log_to_stderr()
    # A batch system's SIGTERM must stop servers and trainers like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _require_packages(executor: Executor, *, dry_run: bool = False) -> None:
    if dry_run or executor.container is not None:
        # A dry run lists what else is missing; an image has the packages of trainers, servers and converters.
        extras.require("cai run", extras.COMPOSING, "hydra")
    else:
        extras.require("cai run")


def _command(args: argparse.Namespace) -> list[str]:
    return ["cai", "run", str(args.config), *_overrides(args), "--output", str(args.output)]


def _overrides(args: argparse.Namespace) -> list[str]:
    return [*args.overrides, *([f"seed={args.seed}"] if args.seed is not None else [])]


@contextmanager
def _resumable(args: argparse.Namespace) -> Generator[None]:
    """Add the way to resume to the errors of a started run."""
    resume = f"the same command, without --from, resumes from the unfinished step; {args.output} keeps the others"
    try:
        yield
    except StepMissing as error:
        command = shlex.join([*_command(args), "--step", error.step])
        raise UsageError(f"{error}; make it first: {command}") from error
    except UsageError:
        raise  # no step was run
    except KeyboardInterrupt:
        raise KeyboardInterrupt(resume) from None
    except CaiError as error:
        raise CaiError(f"{error}\n{resume}") from error


def _show(folder: Path, metrics: dict[str, Any]) -> None:
    console = open_console()
    if layout.MEASURE in metrics["steps"]:
        _show_measured(console, metrics)
    if layout.ANSWERS in metrics["steps"]:
        for _, row in read_jsonl(folder / layout.ANSWERS / layout.ANSWERS_FILE):
            console.print(
                f"{row['model']}: {row['prompt']}\n    {row['answer'].strip()}", soft_wrap=True, markup=False
            )
    console.print(f"{metrics['seconds']:.0f} s, peak memory {metrics['peak_rss_mb']:.0f} MB")
    policy = folder / (layout.DPO if layout.DPO in metrics["steps"] else layout.PPO) / layout.MODEL
    files = {
        "SL-CAI data": folder / layout.SL_CAI / "train.jsonl",
        "AI preferences": folder / layout.RL_CAI / "rm_train.jsonl",
        "SL-CAI model": folder / layout.SFT / layout.MODEL,
        "reward model": folder / layout.REWARD_MODEL / layout.MODEL,
        "RL-CAI model": policy,
        "metrics": folder / "metrics.json",
        # A report that could not be written was logged.
        "report": folder / REPORT,
    }
    for name, path in files.items():
        # A folder may have models of an earlier run by another method.
        if path.is_file() and (path.parent == folder or path.parent.name in metrics["steps"]):
            console.print(f"{name + ':':16}{path}", soft_wrap=True)
    console.print(f"talk to it:     cai chat {policy}", soft_wrap=True)


def _show_measured(console: Console, metrics: dict[str, Any]) -> None:
    console.print(table(metrics["stages"]))
    judge, reward_model = metrics["judge"], metrics["reward_model"]["accuracy"]
    if judge["accuracy"] is not None:
        share = f"{100 * judge['accuracy']:.1f} % of {judge['n']} kept pairs"
        console.print(f"judge:        {share} agree with the oracle")
    if judge["position_flip_rate"] is not None:
        flips = f"{100 * judge['position_flip_rate']:.1f} % of the pairs judged in both orders"
        console.print(f"position:     the order decided {flips}; they were dropped")
    if reward_model is not None:
        console.print(f"reward model: {100 * reward_model:.1f} % of held-out pairs ranked correctly")
