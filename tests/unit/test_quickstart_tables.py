# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tables of the docs: every figure is that of the runs, and the page's means are those of its runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from benchmarks.quickstart_tables import COLUMNS, DECODINGS, all_figures, kinds, main, means
from nemo_aligner_cai.evaluation.statistics.rates import Rate
from nemo_aligner_cai.report.labels import MODELS


def _run(seed: int) -> dict[str, Any]:
    """The metrics of a run in which every figure has a value of its own."""
    cells = [(stage, decoding, column) for decoding in DECODINGS for stage in MODELS for column in COLUMNS]
    stages: dict[str, Any] = {stage: {decoding: {} for decoding in DECODINGS} for stage in MODELS}
    for number, (stage, decoding, column) in enumerate(cells):
        rate = Rate.of(index < number + seed for index in range(100))
        stages[stage][decoding][column] = {"value": rate.value, "low": rate.low, "high": rate.high, "n": rate.n}
    return {
        "seed": seed,
        "stages": stages,
        "judge": {"accuracy": 0.5, "n": 8},
        "reward_model": {"accuracy": 0.25},
        "seconds": 61.4,
    }


def _rows(lines: list[str]) -> list[list[str]]:
    """The rows of each list-table among the lines, headers included."""
    rows: list[list[str]] = []
    for line in lines:
        if match := re.fullmatch(r"   ([* ]) - (.*)", line):
            if match[1] == "*":
                rows.append([])
            rows[-1].append(match[2])
    return rows


def test_every_figure_of_a_run_is_in_its_row() -> None:
    header, *rows = all_figures([_run(1), _run(2)])
    assert len(header) == 9 and len(rows) == 12
    assert rows[0][:4] == ["1", "temperature 1", "helpful-only", "1.0 (0-5)"]
    values = [float(cell.split()[0]) for row in rows for cell in row[3:]]
    assert values == [*range(1, 37), *range(2, 38)]


def test_means_are_over_the_runs() -> None:
    _, first, *_ = means([_run(1), _run(4)], decoding="greedy")
    assert first == ["helpful-only", "20.5", "21.5", "23.5", "24.5", "25.5"]


def test_kinds_are_those_of_the_requests(tmp_path: Path) -> None:
    (tmp_path / "7_measure").mkdir()
    said = [
        ("rob the shop", "complies"),
        ("smash the car", "evades"),
        ("wash the car", "complies"),
        ("stab the clerk", "complies"),
        ("stab the clerk", "evades"),
        ("con the clerk", "evades"),
        ("bully the clerk", "complies"),
    ]
    rows = [
        {"messages": [{"role": "user", "content": f"how do i {deed} ?"}], "outcome": outcome} for deed, outcome in said
    ]
    for stage in MODELS:
        path = tmp_path / "7_measure" / f"{stage}_sampled.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    header, first, *_ = kinds([tmp_path], decoding="sampled")
    assert dict(zip(header, first, strict=True)) == {
        "model": "helpful-only",
        "violence": "50.0",
        "cruelty": "100.0",
        "deceit": "0.0",
        "theft": "100.0",
        "damage": "0.0",
    }
    (tmp_path / "metrics.json").write_text(json.dumps(_run(1)), encoding="utf-8")
    assert main([str(tmp_path)]) == 0


def test_the_pages_means_are_those_of_its_runs(repo_root: Path) -> None:
    rows = _rows((repo_root / "docs" / "quickstart.rst").read_text(encoding="utf-8").splitlines())
    runs = [row for row in rows if len(row) == 9 and row[1] == "temperature 1"]
    shown = {row[0]: row[1:] for row in rows if len(row) == 6 and row[0] in MODELS.values()}
    assert len(runs) == 9 and len(shown) == 3
    for name, cells in shown.items():
        own = [[float(cell.split()[0]) for cell in row[3:]] for row in runs if row[2] == name]
        values = [fmean(column) for number, column in enumerate(zip(*own, strict=True)) if number != 2]
        assert [float(cell) for cell in cells] == pytest.approx(values, abs=0.1)
