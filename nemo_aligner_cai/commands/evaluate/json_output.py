# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The flags --json and --overwrite of commands that read one file, show its figures and may write others."""

import argparse
from pathlib import Path

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.files import require_file
from nemo_aligner_cai.files.output_paths import check_output, refuse_same


def add_json_flags(parser: Parser, *outputs: str) -> None:
    """Declare the flags; `outputs` are the names of other flags that name an output."""
    parser.add_argument("--json", metavar="OUT", help="write all figures to this file")
    outputs = ("json", *outputs)
    flags = [f"--{name}" for name in outputs]
    parser.add_argument("--overwrite", action="store_true", help=f"replace an existing file of {' or '.join(flags)}")
    parser.set_defaults(outputs=outputs)
    parser.effect(
        "overwrite",
        when=lambda args: bool(_targets(args)),
        otherwise=f"without {' or '.join(flags)}",
    )


def checked_input(args: argparse.Namespace) -> Path:
    """Return the command's file; raises UsageError if it is missing, or if an output cannot be written."""
    file = require_file(args.file)
    refuse_same([file], _targets(args))
    for target in _targets(args):
        check_output(target, overwrite=args.overwrite)
    return file


def _targets(args: argparse.Namespace) -> list[str]:
    return [target for name in args.outputs if (target := getattr(args, name))]
