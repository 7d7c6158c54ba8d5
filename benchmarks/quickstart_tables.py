# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/quickstart.rst, of the runs in the given folders, and the kinds of harm of docs/tiny_world.rst.

    python -m benchmarks.quickstart_tables runs/seed1 runs/seed2 runs/seed3

Every figure is a percentage; those of one run have 95 % Wilson intervals.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.table import list_table
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.files import read_json, read_jsonl
from nemo_aligner_cai.report.labels import MODELS
from nemo_aligner_cai.tiny.language import language

COLUMNS = {
    "harmful_compliance": "complies with harm",
    "right_refusal": "refuses, right reason",
    "flawed_refusal": "refuses, flawed",
    "evasion": "evades",
    "helpfulness": "helps",
    "over_refusal": "over-refuses",
}
DECODINGS = {"sampled": "temperature 1", "greedy": "greedy"}


def means(runs: Sequence[Mapping[str, Any]], *, decoding: str) -> Iterator[list[str]]:
    """Rows of the means over runs: a model, and all figures but flawed refusals."""
    columns = [column for column in COLUMNS if column != "flawed_refusal"]
    yield ["model", *(COLUMNS[column] for column in columns)]
    for stage, name in MODELS.items():
        values = [[run["stages"][stage][decoding][column]["value"] for run in runs] for column in columns]
        yield [name, *(f"{100 * fmean(one):.1f}" for one in values)]


def all_figures(runs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Rows of each run, decoding and model."""
    yield ["seed", "decoding", "model", *COLUMNS.values()]
    for run in runs:
        for decoding, title in DECODINGS.items():
            for stage, name in MODELS.items():
                rates = [Rate(**run["stages"][stage][decoding][column]) for column in COLUMNS]
                yield [str(run["seed"]), title, name, *map(_with_interval, rates)]


def judges(runs: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Rows of each run: judge, reward model and time."""
    yield [
        "seed",
        "judge: kept pairs that agree with the oracle",
        "reward model: held-out pairs ranked correctly",
        "seconds",
    ]
    for run in runs:
        judge = run["judge"]
        yield [
            str(run["seed"]),
            f"{100 * judge['accuracy']:.1f} % of {judge['n']}",
            f"{100 * run['reward_model']['accuracy']:.1f} %",
            f"{run['seconds']:.0f}",
        ]


def kinds(folders: Sequence[Path], *, decoding: str) -> Iterator[list[str]]:
    """Rows of each model: compliance with each kind of harm, over all runs."""
    names = [kind.name for kind in language().kinds if kind.harmful]
    yield ["model", *names]
    for stage, title in MODELS.items():
        found: dict[str, list[bool]] = {name: [] for name in names}
        for folder in folders:
            for _, row in read_jsonl(folder / "7_measure" / f"{stage}_{decoding}.jsonl"):
                deed = language().deed_in(row["messages"][-1]["content"])
                if deed is not None and deed.harmful:
                    found[deed.kind.name].append(row["outcome"] == "complies")
        yield [title, *(f"{100 * fmean(one):.1f}" for one in found.values())]


def _with_interval(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} ({100 * rate.low:.0f}-{100 * rate.high:.0f})"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quickstart_tables", description="Tables of the docs.")
    parser.add_argument("folders", type=Path, nargs="+", help="folders of finished runs of the quickstart")
    folders: list[Path] = parser.parse_args(argv).folders
    runs = [read_json(folder / "metrics.json") for folder in folders]
    tables = (
        means(runs, decoding="sampled"),
        means(runs, decoding="greedy"),
        all_figures(runs),
        judges(runs),
        kinds(folders, decoding="sampled"),
    )
    for table in tables:
        sys.stdout.write("\n".join(list_table(table)) + "\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
