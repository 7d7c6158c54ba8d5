# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai rank`: evalica's golden files by the command, formats of comparisons, and errors."""

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.cli import main
from nemo_aligner_cai.evaluation.preferences.pair_files import read_pair_results
from nemo_aligner_cai.evaluation.statistics.win_rates import PairResult
from nemo_aligner_cai.files import write_jsonl


@pytest.mark.parametrize(("name", "models"), [("simple", 5), ("food", 5), ("llmfao", 59)])
def test_evalicas_golden_files(shared_data: Path, tmp_path: Path, name: str, models: int) -> None:
    target = tmp_path / "figures.json"
    assert main(["rank", str(shared_data / "evalica" / f"{name}.csv"), "--json", str(target)]) == 0
    found: dict[str, Any] = json.loads(target.read_text())["models"]
    golden: defaultdict[str, dict[str, float]] = defaultdict(dict)
    with (shared_data / "evalica" / f"{name}-golden.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            golden[row["algorithm"]][row["item"]] = float(row["score"])
    assert len(found) == models
    odds = {model: math.exp(one["strength"]["value"]) for model, one in found.items()}
    shares = {model: value / sum(odds.values()) for model, value in odds.items()}
    assert shares == pytest.approx(golden["bradley_terry"], abs=1e-6)
    assert {model: one["elo"] for model, one in found.items()} == pytest.approx(golden["elo"], abs=1e-6)
    averages = {model: one["average_win_rate"] for model, one in found.items()}
    assert averages == pytest.approx(golden["average_win_rate"], abs=1e-6)


def test_evalicas_and_chatbot_arenas_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    arena = {"model_a": "x", "model_b": "y", "question_id": 81}
    rows = [
        {"left": "x", "right": "y", "winner": "right", "prompt": "p"},
        {"left": "x", "right": "y", "winner": "left"},
        *({**arena, "winner": winner} for winner in ("model_a", "model_b", "tie", "tie (bothbad)")),
    ]
    write_jsonl(path, rows)
    assert list(read_pair_results(path)) == [
        PairResult("p", "x", "y", 0.0),
        PairResult("line 2", "x", "y", 1.0),
        *(PairResult("81", "x", "y", score) for score in (1.0, 0.0, 0.5, 0.5)),
    ]


def test_a_bound_is_shown_as_one_and_the_best_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    results = [("a", "b", "left" if n % 3 else "right") for n in range(30)]
    results += [("best", "a", "left")] * 30 + [("b", "worst", "left")] * 30 + [("p", "q", "tie")] * 3
    path.write_text("left,right,winner\n" + "".join(f"{','.join(row)}\n" for row in results))
    assert main(["rank", str(path), "--baseline", "b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model (strength of b = 0)")
    shown = [line.split()[0] for line in lines[1:]]
    assert shown.index("best") < shown.index("a") < shown.index("b") < shown.index("worst")
    assert any(line.startswith("best") and " > " in line for line in lines)
    assert any(line.startswith("worst") and " < " in line for line in lines)
    assert any(line.startswith("p ") and " - " in line for line in lines)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("left,right,winner\na,b,left\na,b,c\n", ":3: .*'winner'"),
        ("left,right,winner\na,b\n", ":2: has 2 cells"),
        ("left,right,winner\na,b,left,x\n", ":2: has 4 cells"),
        ("one,two,three\na,b,c,d\n", ":2: has 4 cells"),
        ("left,right,winner,winner\na,b,left,right\n", ":1: .*column twice"),
        ("left,right,winner\na,b,\n", ":2: .*'winner'.* null"),
        ("left,right,winner\na,a,left\n", ":2: .*itself"),
        ("one,two,winner\na,b,left\n", ":2: .*'model_a'"),
        ("left,right,winner\n", "no rows"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, named: str) -> None:
    import re

    path = tmp_path / "rows.csv"
    path.write_text(content)
    assert main(["rank", str(path)]) == 2
    assert re.search(named, capsys.readouterr().err)


def test_an_unknown_baseline_and_an_existing_output_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("left,right,winner\na,b,left\n")
    assert main(["rank", str(path), "--baseline", "z"]) == 2
    assert "--baseline z" in capsys.readouterr().err
    target = tmp_path / "figures.json"
    target.write_text("{}")
    assert main(["rank", str(path), "--json", str(target)]) == 2
    assert main(["rank", str(path), "--json", str(target), "--overwrite"]) == 0
