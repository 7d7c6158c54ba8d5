# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""``cai quickstart``: the whole of CAI on this machine with the tiny assistant."""

from __future__ import annotations

import argparse
from pathlib import Path

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.commands.run import add_run_arguments, run


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:  # pyright: ignore[reportPrivateUsage]
    """Add ``cai quickstart``."""
    parser = subparsers.add_parser("quickstart", help="run the whole of CAI on this machine with the tiny assistant")
    add_run_arguments(parser, output=Path("runs/quickstart"))
    parser.set_defaults(run=run, config=packaged_files.QUICKSTART)
