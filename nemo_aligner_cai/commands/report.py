# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai report RUN`: a run or an evaluation as one HTML file."""

import argparse
from pathlib import Path

from nemo_aligner_cai.commands.common.flag_types import COUNT
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.pipeline.config import closed_values
from nemo_aligner_cai.report.report import MOST_CHAINS, REPORT, write_report
from nemo_aligner_cai.report.run_folder import RunFolder


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai report`."""
    parser.epilog = (
        "The file opens from disk, loads nothing and sends nothing. A run that is not finished has one too."
    )
    parser.examples = ("cai report runs/quickstart", "cai report runs/quickstart --redact --output shared.html")
    parser.add_argument(
        "folder",
        metavar="RUN",
        type=Path,
        help="the --output of `cai run`, `cai quickstart` or `cai evaluate`",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the HTML file (default: RUN/{REPORT})")
    parser.add_argument("--chains", type=COUNT, default=MOST_CHAINS, help="most chains in the page, chosen at random")
    parser.add_argument(
        "--redact", action="store_true", help="for sharing: remove the texts of prompts, models and settings"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    # RUN/report.html is made by the run itself: only another file needs it.
    parser.effect("overwrite", when=lambda args: bool(args.output), otherwise="without --output")


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path."""
    folder = RunFolder(args.folder)
    if args.output:
        check_output(args.output, overwrite=args.overwrite)
    target = args.output or args.folder / REPORT
    write_report(folder, target, redact=closed_values() if args.redact else None, chains=args.chains)
    write_line(f"report: {target}")
    return 0
