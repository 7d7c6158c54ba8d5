# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai train STAGE key=value...`: one of the trainers, with our configs and Hydra overrides."""

import argparse
import importlib
import os
import shlex
import sys
from typing import Any

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.flag_types import Parser
from nemo_aligner_cai.commands.common.terminal import write_line

# What is typed -> the module whose STAGE runs.
STAGES = {
    "sft": "sft",
    "reward-model": "reward_model",
    "critic": "critic_server",
    "ppo-actor": "ppo_actor",
    "dpo": "dpo",
    "pretrain": "pretrain",
}


def add_parser(subparsers: Any) -> None:
    """Declare `cai train`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "train",
        help="start a trainer",
        description="Start a trainer: upstream's script in the NeMo container, else this package's module. Settings "
        "are Hydra overrides; --cfg job prints them all.",
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        metavar="key=value",
        help="overrides of the stage's config; also --config-name, --config-dir and --cfg job; --trainer "
        "auto|upstream|ours; and --print-command, which starts nothing",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the stage in this process, or in its place what does the work."""
    extras.require("cai train")
    from nemo_aligner_cai.training.launch import entry
    from nemo_aligner_cai.training.launch.stage import (
        compose,
        execute,
        exit_process,
        log_to_stderr,
        main_guard,
        parse_args,
    )

    # Flags may stand among the overrides, which argparse leaves alone.
    own = Parser(prog="cai train", add_help=False, allow_abbrev=False)
    own.add_argument("--trainer", choices=entry.TRAINERS, default="auto")
    own.add_argument("--print-command", action="store_true")
    own_flags, overrides = own.parse_known_args(args.overrides)
    module = f"nemo_aligner_cai.training.{STAGES[args.stage]}"
    stage = importlib.import_module(module).STAGE
    log_to_stderr()
    arguments = parse_args(overrides, stage.config)
    cfg = compose(arguments)
    command = None if arguments.show else entry.command(args.stage, stage, module, arguments, cfg, own_flags.trainer)
    if own_flags.print_command:
        here = [sys.executable, "-m", module, *entry.settings(arguments)]
        write_line(shlex.join(command or here))
        return 0
    if command is not None:
        sys.stdout.flush()
        # In this process's place: signals and the exit code are its own.
        os.execv(command[0], command)
    code = main_guard(lambda: execute(stage, arguments, cfg, quietly=True))
    if code:
        exit_process(code)
    return code
