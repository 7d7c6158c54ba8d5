# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai components`: list the registered components and the packages they come from."""

import argparse
import sys

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import write_line
from nemo_aligner_cai.console.printable import error_line
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.registry import BUILTIN, components


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai components`."""
    parser.epilog = "The exit code is 1 if a component cannot be loaded."
    parser.examples = ("cai components", "cai components formats")
    parser.add_argument("kind", nargs="?", choices=list(BUILTIN), help="list only this kind (default: all)")


def run(args: argparse.Namespace) -> int:
    """List the components; returns 1 if one of them cannot be loaded."""
    rows: list[tuple[str, ...]] = []
    broken: list[str] = []
    for kind in [args.kind] if args.kind else BUILTIN:
        for component in components(kind).values():
            try:
                description = component.describe()
            except UsageError as error:
                broken.append(str(error))
                description = "(cannot be loaded)"
            rows.append((component.kind, component.name, component.origin, description))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        write_line("  ".join([*cells, row[-1]]))
    for problem in broken:
        sys.stderr.write(error_line(problem))
    return 1 if broken else 0
