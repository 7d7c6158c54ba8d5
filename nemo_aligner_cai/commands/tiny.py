# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai tiny build` and `cai tiny data`: make the tiny assistant's model and its data files."""

import argparse
from pathlib import Path

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.flag_types import COUNT, SEED, TRAINING_SEED
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.tiny.data import Sizes, write_data
from nemo_aligner_cai.tiny.language import language


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai tiny`."""
    parser.examples = ("cai tiny data --output tiny_data",)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    build = actions.add_parser("build", help="pretrain the tiny assistant on this machine and save it as .nemo")
    build.examples = ("cai tiny build --output models/tiny",)
    build.add_argument("--output", type=Path, required=True, help="folder for assistant.nemo and its training data")
    build.add_argument("--seed", type=TRAINING_SEED, default=1, help="seed of the texts and of the training")
    build.add_argument(
        "--documents", type=COUNT, help="number of texts to train on (150000, or 165000 with --reasoning)"
    )
    build.add_argument("--reasoning", action="store_true", help="a larger assistant that can reason before it chooses")
    build.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="Hydra overrides of the pretraining")

    data = actions.add_parser("data", help="write the tiny world's data files in the formats of the real ones")
    data.examples = ("cai tiny data --output tiny_data --rows 1000",)
    data.add_argument("--output", type=Path, required=True, help="folder for the files")
    data.add_argument("--seed", type=SEED, default=1, help="seed of the rows")
    data.add_argument("--rows", type=COUNT, default=500, help="rows per file")


def run(args: argparse.Namespace) -> int:
    """Build the model or write the data."""
    if args.action == "data":
        write_data(args.output, language(), Sizes(*[args.rows] * 5), seed=args.seed)
        return 0
    extras.require("cai tiny build")
    from nemo_aligner_cai.tiny.build import PACKAGED, REASONING, build_assistant

    recipe = REASONING if args.reasoning else PACKAGED
    build_assistant(args.output, seed=args.seed, documents=args.documents, recipe=recipe, overrides=args.overrides)
    return 0
