# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""``cai run CONFIG`` and what ``cai quickstart`` has in common with it: the seven steps in one folder."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.exit_codes import log_to_stderr
from nemo_aligner_cai.commands.common.flag_types import TRAINING_SEED
from nemo_aligner_cai.commands.common.terminal import open_console
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.pipeline.measure import table
from nemo_aligner_cai.pipeline.run import MODEL, PPO, REWARD_MODEL, RL_CAI, SFT, SL_CAI, STEPS, Pipeline


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add ``cai run``."""
    parser = subparsers.add_parser("run", help="run the seven steps as a configuration file says")
    parser.add_argument("config", type=Path, help="a YAML file like nemo_aligner_cai/tiny/quickstart.yaml")
    add_run_arguments(parser, output=None)
    parser.set_defaults(run=run)


def add_run_arguments(parser: argparse.ArgumentParser, *, output: Path | None) -> None:
    """The arguments that both commands take."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="values to replace in the configuration")
    parser.add_argument("--output", type=Path, default=output, required=output is None, help="the run's folder")
    parser.add_argument("--seed", type=TRAINING_SEED, help="of everything random; short for seed=N")
    parser.add_argument("--from", dest="first", choices=STEPS, help="repeat this step and all after it")


def run(args: argparse.Namespace) -> int:
    """Run or resume a pipeline, as ``args.config`` says, and say what came of it."""
    extras.require("cai run")
    log_to_stderr()
    # A batch system's SIGTERM is to stop servers and trainers as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    overrides = [*args.overrides, *([f"seed={args.seed}"] if args.seed is not None else [])]
    config = load_run_config(args.config, overrides)
    pipeline = Pipeline(config, args.output)
    again = f"the same command, without --from, goes on from the unfinished step; {args.output} keeps the others"
    try:
        metrics = pipeline.run(args.first)
    except UsageError:
        raise  # nothing was done that one could go on from
    except KeyboardInterrupt:
        raise KeyboardInterrupt(again) from None
    except CaiError as error:
        raise CaiError(f"{error}\n{again}") from error
    _show(args.output, metrics)
    return 0


def _show(folder: Path, metrics: dict[str, Any]) -> None:
    console = open_console()
    console.print(table(metrics["stages"]))
    judge, reward_model = metrics["judge"], metrics["reward_model"]["accuracy"]
    if judge["accuracy"] is not None:
        share = f"{100 * judge['accuracy']:.1f} % of {judge['n']} kept pairs"
        console.print(f"judge:        {share} are as the oracle ranks them")
    if judge["position_flip_rate"] is not None:
        flips = f"{100 * judge['position_flip_rate']:.1f} % of the pairs in both orders"
        console.print(f"position:     the order decided {flips}, which were left out")
    if reward_model is not None:
        console.print(f"reward model: {100 * reward_model:.1f} % of held-out pairs ranked right")
    console.print(f"{metrics['seconds']:.0f} s, at most {metrics['peak_rss_mb']:.0f} MB of memory")
    files = {
        "SL-CAI data": folder / SL_CAI / "train.jsonl",
        "AI preferences": folder / RL_CAI / "rm_train.jsonl",
        "SL-CAI model": folder / SFT / MODEL,
        "reward model": folder / REWARD_MODEL / MODEL,
        "RL-CAI model": folder / PPO / MODEL,
        "metrics": folder / "metrics.json",
    }
    for name, path in files.items():
        console.print(f"{name + ':':16}{path}", soft_wrap=True)
    console.print(f"talk to it:     cai chat {folder / PPO / MODEL}", soft_wrap=True)
