# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""``cai tiny build`` and ``cai tiny data``: make the tiny assistant and its data files."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.flag_types import COUNT, SEED, TRAINING_SEED
from nemo_aligner_cai.tiny.data import Sizes, write_data
from nemo_aligner_cai.tiny.language import language


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add ``cai tiny``."""
    parser = subparsers.add_parser("tiny", help="build the tiny assistant's model, data and vocabulary")
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    build = actions.add_parser("build", help="pretrain the tiny assistant on this machine and save it as .nemo")
    build.add_argument("--output", type=Path, required=True, help="folder for assistant.nemo and what it is made of")
    build.add_argument("--seed", type=TRAINING_SEED, default=1)
    build.add_argument("--documents", type=COUNT, default=150_000)
    build.add_argument("overrides", nargs="*", help="Hydra overrides for the pretraining, key=value")
    build.set_defaults(run=_build)

    data = actions.add_parser("data", help="write the tiny world's data files in the formats of the real ones")
    data.add_argument("--output", type=Path, required=True, help="folder for the files")
    data.add_argument("--seed", type=SEED, default=1)
    data.add_argument("--rows", type=COUNT, default=500, help="rows of each file")
    data.set_defaults(run=_data)


def _build(args: argparse.Namespace) -> int:
    extras.require("cai tiny build")
    from nemo_aligner_cai.tiny.build import build_assistant

    build_assistant(args.output, seed=args.seed, documents=args.documents, overrides=args.overrides)
    return 0


def _data(args: argparse.Namespace) -> int:
    sizes = Sizes(*(args.rows for _ in range(5)))
    write_data(args.output, language(), sizes, seed=args.seed)
    return 0
