# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Several files of one format as one, each with its share.

    cai data blend --files cai_train_comparisons.jsonl helpful_train_comparisons.jsonl --weights 0.3 0.7 \
        --output blend_train.jsonl

Upstream's trainers take such weights as `[0.3, a.jsonl, 0.7, b.jsonl]`, and stop at them where whole files are asked
for, as its scripts do. A file that holds the shares says the same.
"""

import argparse
from collections.abc import Sequence

from nemo_aligner_cai.commands.common.exit_codes import exit_code
from nemo_aligner_cai.commands.common.flag_types import SEED, Number, Parser
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.data.blend import blend_files

description = "Files of one format as one, each with its share."


def build_parser() -> argparse.ArgumentParser:
    """The flags of `cai data blend`."""
    parser = Parser(prog="cai data blend", description=description)
    parser.add_argument("--files", nargs="+", required=True, metavar="FILE", help="plain .jsonl files of one format")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=Number(float, 0, above=True),
        metavar="W",
        help="the share of each file in the records that are written, none of which stands twice (default: all rows)",
    )
    parser.add_argument("--output", required=True, metavar="FILE")
    parser.add_argument("--seed", type=SEED, default=1234, help="of the order (default: 1234)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def run(args: argparse.Namespace) -> int:
    """Write the blend, and say how many rows of each file are in it."""
    blend = blend_files(args.files, args.output, seed=args.seed, weights=args.weights, overwrite=args.overwrite)
    write_line(f"{args.output}: {blend}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code, and shows an error as one line."""
    return exit_code(lambda: run(build_parser().parse_args(argv)), "error")
