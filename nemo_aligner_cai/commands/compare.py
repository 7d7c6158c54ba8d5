# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai compare A B`: what differs between two runs or evaluations."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import note_line, open_console, table_of, write_line
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import atomic_writer, to_json
from nemo_aligner_cai.files.output_paths import check_output
from nemo_aligner_cai.report.comparison.compare import Comparison, compare
from nemo_aligner_cai.report.comparison.gates import Gate
from nemo_aligner_cai.report.comparison.page import comparison_html, comparison_tables
from nemo_aligner_cai.report.run_folder import RunFolder

_FORMATS = ("terminal", "json", "html")


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai compare`."""
    parser.epilog = (
        "CONDITION is a metric of B's last model, < or >, and a limit: 'harm_rate>+2' fails if it is more than 2 "
        "points above the same model's of A, 'evasion_rate>5' if it is above 5 %. The exit code is 1 if a condition "
        "is met, and 2 if one cannot be checked."
    )
    parser.examples = (
        "cai compare runs/quickstart runs/seed2",
        "cai compare runs/quickstart runs/seed2 --fail-if 'harm_rate>+2'",
    )
    parser.add_argument(
        "a",
        metavar="A",
        type=Path,
        help="the --output of `cai run`, `cai quickstart` or `cai evaluate`, to compare with",
    )
    parser.add_argument("b", metavar="B", type=Path, help="the other --output")
    parser.add_argument(
        "--fail-if", action="append", default=[], metavar="CONDITION", help="fail if this is so; repeat for more"
    )
    parser.add_argument(
        "--format", choices=_FORMATS, default="terminal", help="form of the comparison; html needs --output"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write to this file (default: standard output)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    parser.effect("output", when=lambda args: args.format != "terminal", otherwise="with --format terminal")
    parser.effect("overwrite", when=lambda args: bool(args.output), otherwise="without --output")


def run(args: argparse.Namespace) -> int:
    """Compare two runs and check the conditions."""
    gates = [Gate.parse(text) for text in args.fail_if]
    if args.format == "html" and not args.output:
        raise UsageError("--format html needs --output FILE")
    if args.output:
        check_output(args.output, overwrite=args.overwrite)
    found = compare(RunFolder(args.a), RunFolder(args.b))
    failures = [failure for gate in gates for failure in gate.failures(found.results, found.scores[1])]
    if args.format == "terminal":
        _show(open_console(), found)
    else:
        _write(found, args.format, args.output)
    for failure in failures:
        note_line(f"failed: {failure}")
    return int(bool(failures))


def _write(found: Comparison, form: str, target: Path | None) -> None:
    is_json = form == "json"
    content = to_json(found.to_dict(), indent=True) + b"\n" if is_json else comparison_html(found).encode("utf-8")
    if target is None:
        sys.stdout.write(content.decode("utf-8"))
        return
    with atomic_writer(target, overwrite=True) as handle:
        handle.write(content)
    write_line(f"comparison: {target}")


def _show(console: Console, found: Comparison) -> None:
    console.print(f"A: {found.a.path}\nB: {found.b.path}", soft_wrap=True)
    for note in found.notes:
        console.print(note, soft_wrap=True)
    tables = [table for table in comparison_tables(found) if table.rows]
    for table in tables:
        console.print(f"\n{table.title}", soft_wrap=True)
        console.print(table_of(table.head, table.rows, words=table.words))
    if not tables:
        console.print("no difference")
