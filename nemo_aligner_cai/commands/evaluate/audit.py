# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai audit FILE ...`: biases of the judge of an RL-CAI run.

Input:  cai_comparisons.jsonl of one run, or of several that judged the same candidates
Output: win rates by principle, length bias, position bias, agreement between the runs; as tables, as --json, and the
        preferences as --icai for inverse-cai
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.console import Console

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console, rate_cell, table_of
from nemo_aligner_cai.data.formats.files import convert_file
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.errors import FormatError
from nemo_aligner_cai.evaluation.preferences.agreement import Agreement, Preferences
from nemo_aligner_cai.evaluation.preferences.audit import Audit, VerdictStats
from nemo_aligner_cai.files import require_file, write_json
from nemo_aligner_cai.files.output_paths import check_output, refuse_same

Agreements = dict[tuple[int, int], Agreement]


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai audit`."""
    parser.examples = (
        "cai audit rl_cai/cai_comparisons.jsonl",
        "cai audit first/cai_comparisons.jsonl second/cai_comparisons.jsonl --json audit.json",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="cai_comparisons.jsonl of one run, or of several")
    parser.add_argument("--json", metavar="OUT", help="write all figures to this file")
    parser.add_argument("--icai", metavar="OUT", help="write the first file's kept pairs as inverse-cai's CSV")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files of --json and --icai")
    parser.effect("overwrite", when=lambda args: bool(args.json or args.icai), otherwise="without --json or --icai")


def run(args: argparse.Namespace) -> int:
    """Audit each file and compare each two."""
    files = [require_file(file) for file in args.files]
    targets = [target for target in (args.json, args.icai) if target]
    refuse_same(files, targets)
    for target in targets:
        check_output(target, overwrite=args.overwrite)
    exported = args.icai and convert_file(
        files[0], args.icai, to="inverse-cai", source_format="cai-comparisons", overwrite=args.overwrite
    )
    audits, agreements, repeated = _audit(files)
    console = open_console()
    for file, audit in zip(files, audits, strict=True):
        _show(console, file, audit)
    if agreements:
        _show_agreements(console, files, agreements)
    if repeated:
        console.print(f"{repeated} repeated pairs were ignored in the agreement")
    if exported:
        console.print(f"{args.icai}: {exported}", soft_wrap=True)
    if args.json:
        write_json(args.json, _report(files, audits, agreements), overwrite=args.overwrite)
    return 0


def _audit(files: Sequence[Path]) -> tuple[list[Audit], Agreements, int]:
    """Return the audit of each file, the agreement of each two, and the number of repeated pairs."""
    audits: list[Audit] = []
    preferences = Preferences()
    repeated = 0
    for file in files:
        audit = Audit()
        preferences.start_run()
        for row in read_judged(file):
            audit.add(row)
            if len(files) > 1:
                repeated += preferences.add(row)
        if not audit.rows:
            raise FormatError(f"{file}: has no rows")
        audits.append(audit)
    return audits, {pair: preferences.agreement(*pair) for pair in combinations(range(len(files)), 2)}, repeated


def _report(files: Sequence[Path], audits: Sequence[Audit], agreements: Agreements) -> dict[str, Any]:
    return {
        "runs": [{"file": str(file), **audit.to_dict()} for file, audit in zip(files, audits, strict=True)],
        "agreement": [
            {"files": [str(files[number]) for number in pair], **agreement.to_dict()}
            for pair, agreement in agreements.items()
        ],
    }


def _show(console: Console, file: Path, audit: Audit) -> None:
    rows: list[Sequence[object]] = [
        ("prompts", audit.rows),
        ("prompts without a kept pair", audit.rows_without_pair),
        ("kept pairs", audit.pairs),
        ("chosen text is longer, %", rate_cell(audit.longer.rate)),
    ]
    if (ratio := audit.length_ratio) is not None:
        mean, interval = ratio
        shown = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
        rows.append(("length ratio, chosen to rejected", f"{mean:.2f}{shown}"))
    chance = audit.all.first_by_chance.mean
    rows += [
        ("verdicts for the first text, %", rate_cell(audit.all.first.rate)),
        ("first text by chance, %", "-" if chance is None else f"{100 * chance:.1f}"),
        ("verdict flips, %", rate_cell(audit.all.flips.rate)),
    ]
    console.print(table_of((str(file), ""), rows))
    by_principle = sorted(audit.principles.items(), key=lambda item: (-item[1].pairs, item[0]))
    names = ("principle", "judged", "unparsed", "decided", "kept", "longer wins, %", "first wins, %", "flips, %")
    console.print(table_of(names, [_figures(name, figures) for name, figures in by_principle]))
    wins = [(key, won.count, rate_cell(won.rate)) for key, won in sorted(audit.wins.items())]
    console.print(table_of(("candidate", "kept pairs", "wins, %"), wins))


def _figures(name: str, figures: VerdictStats) -> Sequence[object]:
    rates = (figures.longer.rate, figures.first.rate, figures.flips.rate)
    return name, figures.pairs, figures.unparsed, figures.decided, figures.kept, *map(rate_cell, rates)


def _show_agreements(console: Console, files: Sequence[Path], agreements: dict[tuple[int, int], Agreement]) -> None:
    rows = [
        (
            f"{files[first]} and {files[second]}",
            found.common,
            found.only_first,
            found.only_second,
            rate_cell(found.rate),
            "-" if found.kappa is None else f"{found.kappa:.2f}",
        )
        for (first, second), found in agreements.items()
    ]
    names = ("pairs kept by", "both", "first only", "second only", "same preference, %", "Cohen's kappa")
    console.print(table_of(names, rows))
