# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Letters as SFT rows: `cai data letters INPUT OUTPUT`."""

from collections.abc import Sequence
from pathlib import Path

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.console.program import main_guard
from nemo_aligner_cai.data.formats.files import convert_file


def main(argv: Sequence[str]) -> int:
    """Convert a file, and print its row counts; returns the exit code."""

    def run() -> int:
        parser = Parser(prog="cai data letters", description="Write letters to the editor as SFT rows.")
        parser.add_argument("input", type=Path)
        parser.add_argument("output", type=Path)
        args = parser.parse_args(argv)
        write_line(str(convert_file(args.input, args.output, to="sft-chat", source_format="letters")))
        return 0

    return main_guard(run)
