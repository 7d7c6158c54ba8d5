# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai train STAGE KEY=VALUE...`: start a trainer, with this package's configs and Hydra overrides."""

import argparse
import importlib
import os
import shlex
import sys
import textwrap
from itertools import takewhile

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.console.program import main_guard
from nemo_aligner_cai.training.config import config_dir
from nemo_aligner_cai.training.launch import entry, slurm, stage_main

# Name on the command line -> (module of nemo_aligner_cai.training, name of its configuration).
STAGES = {
    "sft": ("sft", "cai_sft"),
    "reward-model": ("reward_model", "cai_reward_model"),
    "critic": ("critic_server", "cai_ppo_critic"),
    "ppo-actor": ("ppo_actor", "cai_ppo_actor"),
    "dpo": ("dpo", "cai_dpo"),
    "pretrain": ("pretrain", "cai_pretrain"),
}


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai train`."""
    parser.epilog = (
        "In the NeMo container, NeMo-Aligner's script is started, elsewhere this package's module. Settings are Hydra "
        "overrides; cai train STAGE --help has the important ones, and --cfg job prints all of them."
    )
    parser.examples = ("cai train sft --help", "cai train sft --cfg job")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, (_, config) in STAGES.items():
        purpose, command, manual = _manual(config)
        stage = stages.add_parser(name, help=purpose, epilog=manual, allow_abbrev=False)
        stage.examples = (command,)
        stage_main.add_flags(stage, config)
        stage.add_argument(
            "--trainer",
            choices=entry.TRAINERS,
            default="auto",
            help="NeMo-Aligner's script, this package's module (ours), or auto: the script if it and a GPU are there",
        )
        stage.add_argument("--print-command", action="store_true", help="print the command without running it")


def _manual(config: str) -> tuple[str, str, str]:
    """The purpose of a configuration, its command line, and its description, from the comment that begins its file."""
    lines = (config_dir() / f"{config}.yaml").read_text(encoding="utf-8").splitlines()
    comment = "\n".join(line[2:] for line in takewhile(lambda line: line.startswith("#"), lines))
    purpose, command, *rest = comment.split("\n\n")
    return " ".join(purpose.split()), textwrap.dedent(command), "\n\n".join(rest)


def run(args: argparse.Namespace) -> int:
    """Run the stage in this process, or replace the process by the command that runs it."""
    extras.require("cai train")
    module = f"nemo_aligner_cai.training.{STAGES[args.stage][0]}"
    stage = importlib.import_module(module).STAGE
    stage_main.log_to_stderr()
    # On a login node, the command to print is that of the cluster's machines.
    for_cluster = args.print_command and not stage_main.cuda_available() and slurm.on_login_node(os.environ)
    given = stage_main.Arguments(args.config_name, args.search, args.overrides, show=args.cfg is not None)
    arguments = stage_main.with_hardware(given, for_cluster=for_cluster)
    cfg = stage_main.compose(arguments, for_cluster=for_cluster)
    command = None
    if not arguments.show:
        started = (args.stage, stage, module, arguments, cfg, args.trainer)
        command = entry.command(*started, for_cluster=for_cluster)
    if args.print_command:
        here = [sys.executable, "-m", module, *entry.settings(arguments)]
        write_line(shlex.join(command or here))
        return 0
    if command is not None:
        sys.stdout.flush()
        # The command replaces this process, so that it gets the signals and sets the exit code.
        os.execv(command[0], command)
    code = main_guard(lambda: stage_main.execute(stage, arguments, cfg, quietly=True), catch_defects=True)
    if code:
        stage_main.exit_process(code)
    return code
