# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The flags --json and --overwrite of commands that read one file and show its figures."""

import argparse
from pathlib import Path

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.files import require_file
from nemo_aligner_cai.files.output_paths import check_output, refuse_same


def add_json_flags(parser: Parser) -> None:
    """Declare the flags."""
    parser.add_argument("--json", metavar="OUT", help="write all figures to this file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file of --json")
    parser.effect("overwrite", when=lambda args: bool(args.json), otherwise="without --json")


def checked_input(args: argparse.Namespace) -> Path:
    """Return the command's file; raises UsageError if it is missing, or if the output cannot be written."""
    file = require_file(args.file)
    if args.json:
        refuse_same([file], [args.json])
        check_output(args.json, overwrite=args.overwrite)
    return file
