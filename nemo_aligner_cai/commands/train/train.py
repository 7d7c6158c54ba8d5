# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai train STAGE KEY=VALUE...`: start a trainer, with this package's configs and Hydra overrides."""

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Sequence

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.console.program import main_guard

# Name on the command line -> module of nemo_aligner_cai.training.
STAGES = {
    "sft": "sft",
    "reward-model": "reward_model",
    "critic": "critic_server",
    "ppo-actor": "ppo_actor",
    "dpo": "dpo",
    "pretrain": "pretrain",
}


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai train`."""
    parser.epilog = (
        "In the NeMo container, upstream's script is started, elsewhere this package's module. Settings are Hydra "
        "overrides; --cfg job prints all of them."
    )
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "overrides",
        nargs=argparse.REMAINDER,
        metavar="KEY=VALUE",
        help="overrides of the stage's config; also --config-name, --config-dir and --cfg job; --trainer "
        "auto|upstream|ours; --print-command to print the command without running it",
    )


def run(args: argparse.Namespace) -> int:
    """Run the stage in this process, or replace the process by the command that runs it."""
    extras.require("cai train")
    from nemo_aligner_cai.training.launch import entry, slurm
    from nemo_aligner_cai.training.launch.stage_main import (
        compose,
        cuda_available,
        execute,
        exit_process,
        log_to_stderr,
        parse_args,
    )

    own_flags, overrides = _own_flags(args.overrides, entry.TRAINERS)
    module = f"nemo_aligner_cai.training.{STAGES[args.stage]}"
    stage = importlib.import_module(module).STAGE
    log_to_stderr()
    # On a login node, the command to print is that of the cluster's machines.
    for_cluster = own_flags.print_command and not cuda_available() and slurm.on_login_node(os.environ)
    arguments = parse_args(overrides, stage.config, for_cluster=for_cluster)
    cfg = compose(arguments, for_cluster=for_cluster)
    command = None
    if not arguments.show:
        started = (args.stage, stage, module, arguments, cfg, own_flags.trainer)
        command = entry.command(*started, for_cluster=for_cluster)
    if own_flags.print_command:
        here = [sys.executable, "-m", module, *entry.settings(arguments)]
        write_line(shlex.join(command or here))
        return 0
    if command is not None:
        sys.stdout.flush()
        # The command replaces this process, so that it gets the signals and sets the exit code.
        os.execv(command[0], command)
    code = main_guard(lambda: execute(stage, arguments, cfg, quietly=True), "error", catch_defects=True)
    if code:
        exit_process(code)
    return code


def _own_flags(words: list[str], trainers: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags of `cai train`, which may be between the overrides, where argparse does not parse them; the others."""
    own = Parser(prog="cai train", add_help=False, allow_abbrev=False)
    own.add_argument("--trainer", choices=trainers, default="auto")
    own.add_argument("--print-command", action="store_true")
    return own.parse_known_args(words)
