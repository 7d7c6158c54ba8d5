# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai validate FILE...`: check the rows of data files, and predict how many of them a trainer uses."""

import argparse
import sys

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.shared_flags import add_tokenizer_flags, requested_tokenizer
from nemo_aligner_cai.commands.common.terminal import note_line, write_line
from nemo_aligner_cai.console.printable import error_line
from nemo_aligner_cai.data.formats.all_formats import detect_format, format_named
from nemo_aligner_cai.data.formats.files import validate_file
from nemo_aligner_cai.data.length import LIMITS, predict_use
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.errors import FormatError, UsageError


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai validate`."""
    parser.epilog = (
        "Exit code: 0 if all rows of all files can be used, 1 if some cannot, 2 if nothing could be checked."
    )
    parser.examples = (
        "cai validate sl_cai.jsonl",
        "cai validate sl_cai.jsonl --tokenizer tokenizer.model --seq-length 4096",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a data file")
    parser.add_argument("--as", dest="format", metavar="FORMAT", help="the format of the files (default: detected)")
    add_tokenizer_flags(parser, "to predict which rows the trainer uses")


def run(args: argparse.Namespace) -> int:
    """Validate each file; returns 1 if a row is invalid, or cannot be used by a trainer."""
    tokenizer = requested_tokenizer(args)
    valid = True
    for file in args.files:
        try:
            line, all_used = _validate(file, args.format, tokenizer, args.seq_length)
        except FormatError as error:
            sys.stderr.write(error_line(error))
            valid = False
            continue
        write_line(line)
        if not all_used:
            note_line(
                "trainers skip, cut, replace or stop at rows that they cannot use; drop them first with "
                "cai convert --tokenizer --seq-length"
            )
            valid = False
    return 0 if valid else 1


def _validate(file: str, format_name: str | None, tokenizer: Tokenizer | None, seq_length: int) -> tuple[str, bool]:
    """Return the result in one line, and whether a trainer can use all rows."""
    name = format_name or detect_format(file)
    line = f"{file}: {name}, {validate_file(file, name).rows_in} rows, all of them valid"
    if format_named(name).read_only:
        line += "; no trainer reads this format, convert it with `cai convert`"
    if tokenizer is None:
        return line, True
    if name not in LIMITS:
        raise UsageError(f"{file}: token limits are known for {', '.join(LIMITS)}, not for {name}")
    use = predict_use(file, name, tokenizer=tokenizer, seq_length=seq_length)
    return f"{line}; {use}", not use.skipped
