# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""`cai data blend`: several files of one format as one file, each with its share.

    cai data blend --files cai_train_comparisons.jsonl helpful_train_comparisons.jsonl --weights 0.3 0.7 \
        --output blend_train.jsonl

Upstream's trainers accept such weights as `[0.3, a.jsonl, 0.7, b.jsonl]`, but fail if a script requests whole files. A
blended file has the same effect.
"""

import argparse
from collections.abc import Sequence

from nemo_aligner_cai.commands.common.flag_types import POSITIVE, SEED
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.console.program import main_guard
from nemo_aligner_cai.data.blend import blend_files

description = "Blend files of one format into one file, each with its share."


def build_parser() -> Parser:
    """Build the parser of `cai data blend`."""
    parser = Parser(prog="cai data blend", description=description)
    parser.examples = (
        "cai data blend --files cai.jsonl helpful.jsonl --output blend.jsonl",
        "cai data blend --files cai.jsonl helpful.jsonl --weights 0.3 0.7 --output blend.jsonl",
    )
    parser.add_argument("--files", nargs="+", required=True, metavar="FILE", help="plain .jsonl files of one format")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=POSITIVE,
        metavar="W",
        help="each file's share of the written records; no record is repeated (default: all rows)",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--seed", type=SEED, default=1234, help="seed of the order")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the blend and print the number of rows from each file."""
    blend = blend_files(args.files, args.output, seed=args.seed, weights=args.weights, overwrite=args.overwrite)
    write_line(f"{args.output}: {blend}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    return main_guard(lambda: run(build_parser().parse_args(argv)))
