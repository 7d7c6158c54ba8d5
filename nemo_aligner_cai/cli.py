# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""``cai``: one command for the whole package.

Each subcommand lives in ``nemo_aligner_cai/commands/`` and is imported only when it is asked for, so that
``cai --help`` and the data half stay quick and need neither torch nor NeMo.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from nemo_aligner_cai import __version__
from nemo_aligner_cai.commands.common.exit_codes import exit_code
from nemo_aligner_cai.commands.common.flag_types import Parser
from nemo_aligner_cai.console import program

# Subcommand -> (module in nemo_aligner_cai.commands, one line of help).
COMMANDS = {
    "quickstart": ("quickstart", "run the whole of CAI on this machine with the tiny assistant"),
    "run": ("run", "run the seven steps as a configuration file says"),
    "chat": ("chat", "talk to a model from the terminal"),
    "tiny": ("tiny", "build the tiny assistant's model, data and vocabulary"),
    "train": ("train.train", "start one of NeMo-Aligner's trainers: sft, reward-model, critic, ppo-actor, dpo"),
    "doctor": ("doctor", "say what is installed, which step is ready, and how to mend one that is not"),
    "checkpoint": ("train.checkpoint", "turn a Hugging Face model into a .nemo file, and back"),
    "merge-lora": ("train.merge_lora", "merge LoRA adapters into their base model"),
    "serve": ("train.serve", "serve a .nemo model with NeMo's text-generation server"),
    "data": (
        "data.data",
        "make data with a generator or a processor: sl-cai, rl-cai, anthropic-hh, blend, or another package's",
    ),
    "validate": ("data.validate", "check a data file against the trainer that will read it"),
    "convert": ("data.convert", "turn a data file into another format"),
    "inspect": ("data.inspect_data", "show statistics and rendered rows of a data file"),
    "constitution": ("constitution", "check a constitution and preview its prompts"),
    "components": ("components", "list judges, prompts, generators, processors and formats, and where they come from"),
    "journal": ("journal", "read the journal of a generation run"),
    "judge-accuracy": ("evaluate.judge_accuracy", "measure a judge on items with a known answer"),
    "plan": ("plan", "calls, tokens, GPU-hours, disk and memory of a run on GPUs"),
    "audit": ("evaluate.audit", "show what else a judge goes by: length, position, principles, agreement of runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: the command line without the program's name; the process's own when None.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage, 130 interrupted.
    """
    program.begin(argv or ())
    return exit_code(lambda: _run(list(sys.argv[1:] if argv is None else argv)), "cai")


def _run(arguments: list[str]) -> int:
    chosen = arguments[0] if arguments and arguments[0] in COMMANDS else None
    parser = Parser(prog="cai", description="Constitutional AI for NVIDIA NeMo-Aligner.")
    parser.add_argument("--version", action="version", version=f"nemo_aligner_cai {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, help_line) in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"nemo_aligner_cai.commands.{module}").add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=help_line)
    args, rest = parser.parse_known_args(arguments)
    # argparse gives up on positional arguments that stand after a flag; overrides may stand anywhere.
    if rest and (not hasattr(args, "overrides") or any(word.startswith("-") or "=" not in word for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
