# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai quickstart`: run all steps of CAI on this machine with the tiny assistant."""

from pathlib import Path

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.run import add_run_arguments
from nemo_aligner_cai.commands.run import run_all as run

__all__ = ["add_arguments", "run"]


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai quickstart`."""
    parser.examples = ("cai quickstart", "cai quickstart --seed 2 --output runs/seed2")
    add_run_arguments(parser, output=Path("runs/quickstart"))
    parser.set_defaults(config=packaged_files.QUICKSTART)
