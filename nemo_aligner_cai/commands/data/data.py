# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai data NAME ...`, or with Hydra groups: make data with a generator or a processor, ours or others'."""

import argparse
import sys
from typing import Any

from nemo_aligner_cai.commands.data.data_groups import FLAGS, compose_command, is_hydra
from nemo_aligner_cai.console.printable import redacted
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.registry import components


def add_parser(subparsers: Any) -> None:
    """Declare `cai data`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "data", help="make data with a generator or a processor: cai data rl-cai --help"
    )
    for flag in FLAGS:
        parser.add_argument(flag, action="append", default=[], metavar="X", help="Hydra's own: with generator=NAME")
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="NAME ...",
        help="sl-cai, rl-cai, anthropic-hh, blend (or see `cai components`) and its own flags; or generator=NAME and "
        "other Hydra overrides",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it; returns its exit code."""
    # Those that stand first; the others are among the words.
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
        raise UsageError(f"there is no generator or processor {name!r}; there are {', '.join(makers)}")
    return int(makers[name].load().main(arguments))
