# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai`: the command line of the package.

Each command is a module of ``nemo_aligner_cai/commands/`` with the functions ``add_arguments(parser)`` and
``run(args)``. It is imported only when it is used, so that ``cai --help`` is fast and needs neither torch nor NeMo.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from nemo_aligner_cai import __version__
from nemo_aligner_cai.commands.common.completion import SHELLS, completion_script
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.console import program
from nemo_aligner_cai.errors import EXIT_CODES
from nemo_aligner_cai.packaged_files import installed

# Command -> (module in nemo_aligner_cai.commands, help text).
COMMANDS = {
    "quickstart": ("quickstart", "run all steps of CAI on this machine with the tiny assistant"),
    "run": ("run", "run the seven steps of a configuration file"),
    "chat": ("chat", "talk to a model on the terminal"),
    "tiny": ("tiny", "build the tiny assistant's model and data"),
    "train": ("train.train", "start a NeMo-Aligner trainer: sft, reward-model, critic, ppo-actor, dpo"),
    "doctor": ("doctor", "show what is installed, which steps are ready, and how to fix the others"),
    "checkpoint": ("train.checkpoint", "convert models between Hugging Face folders and .nemo files"),
    "merge-lora": ("train.merge_lora", "merge LoRA adapters into their base model"),
    "serve": ("train.serve", "serve a .nemo model with NeMo's text-generation server"),
    "data": ("data.data", "make data: sl-cai, rl-cai, anthropic-hh, blend, or a registered component"),
    "validate": ("data.validate", "check a data file against the trainer that will read it"),
    "convert": ("data.convert", "write a data file in another trainer's format"),
    "inspect": ("data.inspect_data", "show statistics and rendered rows of a data file"),
    "constitution": ("constitution", "check a constitution and preview its prompts"),
    "components": ("components", "list judges, prompts, generators, processors and formats, and their packages"),
    "journal": ("journal", "read the journal of a generation run"),
    "evaluate": ("evaluate.evaluate", "measure harm, over-refusal and evasion of models, with intervals"),
    "judge-accuracy": ("evaluate.judge_accuracy", "measure the accuracy of a judge on items with a known answer"),
    "rank": ("evaluate.rank", "rank models from comparisons in pairs: Bradley-Terry, win rates, Elo"),
    "accuracy": (
        "evaluate.accuracy",
        "show the accuracy of saved verdicts or reward scores",
    ),
    "plan": ("plan", "estimate calls, tokens, GPU-hours, disk and memory of a run on GPUs"),
    "report": ("report", "show a run or an evaluation as one HTML file"),
    "compare": ("compare", "show what differs between two runs or evaluations, and fail on conditions"),
    "audit": ("evaluate.audit", "measure biases of AI preferences: length, position, principles, agreement of runs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the command line without the program's name; by default the process's own.

    Returns:
        The exit code, as described in `program.main_guard`.
    """
    return program.main_guard(lambda: _run(list(sys.argv[1:] if argv is None else argv)), argv or ())


def _run(arguments: list[str]) -> int:
    args = parse_args(arguments)
    return args.run(args)


def parse_args(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; its module's function is the attribute `run`. Raises UsageError."""
    name = arguments[0] if arguments else None
    parser, commands = _parsers()
    if name in commands:
        module = _module(name)
        module.add_arguments(commands[name])
        commands[name].set_defaults(run=module.run)
    args, rest = parser.parse_known_args([_with_installed(word) for word in arguments])
    # argparse does not accept positional arguments after a flag; overrides may be anywhere.
    if rest and (not hasattr(args, "overrides") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides = [*args.overrides, *rest]
    return args


def _with_installed(word: str) -> str:
    """A word of a command line: a path, KEY=PATH or --flag=PATH, where PATH may be that of an installed file."""
    name, equals, path = word.rpartition("=")
    return f"{name}{equals}{installed(path)}"


def complete_parser() -> Parser:
    """The parser with the arguments of all commands and components, for documentation and completion."""
    parser, commands = _parsers()
    for name, command in commands.items():
        module = _module(name)
        if name == "data":
            module.add_component_parsers(command)
        module.add_arguments(command)
    return parser


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    """The parser of `cai`, and those of its commands, still without arguments."""
    parser = Parser(prog="cai", description="Constitutional AI for NVIDIA NeMo-Aligner.")
    codes = "; ".join(f"{code}: {meaning}" for code, meaning in EXIT_CODES.items())
    parser.epilog = f"Exit codes: {codes}."
    parser.examples = ("cai quickstart", "cai doctor --for data", "cai validate --help")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=SHELLS,
        default=argparse.SUPPRESS,
        help="print the script that completes commands and flags in this shell, and exit",
    )
    parser.add_argument("--version", action="version", version=f"nemo_aligner_cai {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    return parser, {name: subparsers.add_parser(name, help=text) for name, (_, text) in COMMANDS.items()}


class _PrintCompletion(argparse.Action):
    """Prints the completion script and exits, like argparse's action for a version."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: object, values: object, *_: object) -> None:
        """Print the script of the shell that `values` names."""
        sys.stdout.write(completion_script(complete_parser(), str(values)))
        parser.exit()


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"nemo_aligner_cai.commands.{COMMANDS[name][0]}")


if __name__ == "__main__":
    sys.exit(main())
