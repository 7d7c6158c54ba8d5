# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai validate FILE...`: whether a trainer reads every row as it is meant, and how many of them it will use."""

import argparse
import sys
from typing import Any

from nemo_aligner_cai.commands.common.flag_types import COUNT
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.console.printable import error_line
from nemo_aligner_cai.data.formats.files import detect_format, format_named, validate_file
from nemo_aligner_cai.data.length import LIMITS, load_tokenizer, predict_use
from nemo_aligner_cai.data.tokenizer import Tokenizer
from nemo_aligner_cai.errors import FormatError, UsageError


def add_parser(subparsers: Any) -> None:
    """Declare `cai validate`."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "validate",
        help="check that trainers can read a file",
        epilog="Exit code: 0 if all rows of all files can be used, 1 if some cannot, 2 if nothing could be checked.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    parser.add_argument("--as", dest="format", metavar="FORMAT", help="default: detected")
    parser.add_argument(
        "--tokenizer", help="the model's SentencePiece .model file, or a Hugging Face tokenizer folder"
    )
    parser.add_argument("--seq-length", type=COUNT, help="the model's sequence length; with --tokenizer")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Validate each file; returns 1 where a file has a row that is wrong, or rows that a trainer cannot use."""
    tokenizer = tokenizer_asked_for(args)
    good = True
    for file in args.files:
        try:
            line, all_used = _checked(file, args.format, tokenizer, args.seq_length)
        except FormatError as error:
            sys.stderr.write(error_line("cai", error))
            good = False
            continue
        write_line(line)
        if not all_used:
            sys.stderr.write(
                "trainers skip, cut, replace or stop at rows that they cannot use; leave them out before: "
                "cai convert --tokenizer --seq-length\n"
            )
            good = False
    return 0 if good else 1


def tokenizer_asked_for(args: argparse.Namespace) -> Tokenizer | None:
    """The tokenizer of `--tokenizer`, which goes with `--seq-length`; None where neither is given."""
    if (args.tokenizer is None) != (args.seq_length is None):
        raise UsageError("--tokenizer and --seq-length belong together")
    return load_tokenizer(args.tokenizer) if args.tokenizer else None


def _checked(file: str, format_name: str | None, tokenizer: Tokenizer | None, seq_length: int) -> tuple[str, bool]:
    """What is to be said of a file, and whether all of its rows can be used."""
    name = format_name or detect_format(file)
    line = f"{file}: {name}, {validate_file(file, name).rows_in} rows, all of them valid"
    if format_named(name).read_only:
        line += "; no trainer reads this format, `cai convert` writes one that a trainer reads"
    if tokenizer is None:
        return line, True
    if name not in LIMITS:
        raise UsageError(f"{file}: token lengths are known for {', '.join(LIMITS)}, not for {name}")
    use = predict_use(file, name, tokenizer=tokenizer, seq_length=seq_length)
    return f"{line}; {use}", not use.left_out
