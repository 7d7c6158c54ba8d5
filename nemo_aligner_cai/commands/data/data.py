# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai data NAME ...`, or with Hydra groups: run a registered generator or processor."""

import argparse
import sys

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.data.hydra_groups import FLAGS, compose_command, is_hydra
from nemo_aligner_cai.console.printable import redacted
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.registry import components


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai data`."""
    parser.examples = (
        "cai data rl-cai --help",
        "cai data blend --files cai.jsonl helpful.jsonl --output blend.jsonl",
        "cai data generator=rl-cai judge=multiple-choice --cfg job",
    )
    for flag, text in FLAGS.items():
        parser.add_argument(flag, action="append", default=[], metavar="X", help=text)
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="NAME ...",
        help="sl-cai, rl-cai, anthropic-hh, blend or another name of `cai components`, and its flags (see `cai data "
        "rl-cai --help`); or generator=NAME and other Hydra overrides",
    )


def add_component_parsers(parser: Parser) -> None:
    """Add the flags of the components, each as a subcommand, for documentation and completion."""
    names = parser.add_subparsers(metavar="NAME")
    for name, component in (components("generators") | components("processors")).items():
        if (build := getattr(component.load(), "build_parser", None)) is not None:
            flags = build()
            child = names.add_parser(name, help=flags.description, parents=[flags], add_help=False)
            child.examples = flags.examples


def run(args: argparse.Namespace) -> int:
    """Run the component and return its exit code."""
    # argparse has taken the flags before the first word; later ones are among the words.
    first = [f"{flag}={value}" for flag in FLAGS for value in getattr(args, flag[2:].replace("-", "_"))]
    words: list[str] = [*first, *args.words]
    if not words:
        raise UsageError("name a generator or a processor; `cai components` lists them")
    if is_hydra(words):
        composed = compose_command(words)
        if isinstance(composed, str):
            sys.stdout.write(redacted(composed))
            return 0
        maker, arguments = composed
        return int(maker.load().main(arguments))
    name, *arguments = words
    makers = components("generators") | components("processors")
    if name not in makers:
        raise UsageError(f"no generator or processor is named {name!r}; known: {', '.join(makers)}")
    return int(makers[name].load().main(arguments))
