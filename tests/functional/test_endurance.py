# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
# pyright: basic
"""The endurance benchmark for a fraction of a minute, and its judgment of a run's rows and memory."""

import random
from pathlib import Path

import pytest

from benchmarks.command import COMPARISONS, REVISIONS, RlCai, SlCai
from benchmarks.endurance import Moments, Watched, endure, report
from benchmarks.oracle import Findings, check
from benchmarks.standin import standin
from benchmarks.standin.replies import Lengths
from nemo_aligner_cai.files import read_jsonl, write_jsonl

LENGTHS = Lengths(median=30, sigma=0.5, most=100)
AT_ONCE = ("--time-scale", "0", "--median-tokens", "30", "--sigma", "0.5", "--most-tokens", "100")


def test_half_a_minute_of_faults_kills_and_restarts_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = endure(tmp_path, 0.5, seed=1)
    code = report(outcome)
    assert code == 0, capsys.readouterr()
    assert outcome.kills and outcome.restarts and outcome.faults
    found = outcome.found
    assert found.due == found.rows + found.left_out - _with_rows(tmp_path) > 50
    assert (found.lost, found.doubled, found.mislabeled) == (0, 0, 0)


def _with_rows(folder: Path) -> int:
    """RL-CAI's prompts without a pair have a row, too."""
    return sum(1 for path in folder.rglob("cai_comparisons.left_out.jsonl") for _ in read_jsonl(path))


def test_lost_doubled_and_wrong_rows_of_sl_cai_are_found(tmp_path: Path) -> None:
    with standin(*AT_ONCE) as server:
        run = SlCai(tmp_path, server.url).prepare(20)
        assert run.run() == 0, run.said()
    assert check(run, LENGTHS) == Findings(due=20, rows=20)
    path = tmp_path / REVISIONS
    rows = [row for _, row in read_jsonl(path)]
    # One revision at another prompt, and the fifth row in place of the sixth.
    rows[0]["revision"], rows[5] = rows[1]["revision"], rows[4]
    write_jsonl(path, rows, overwrite=True)
    assert check(run, LENGTHS) == Findings(due=20, rows=20, lost=1, doubled=1, mislabeled=1)


def test_an_exchanged_verdict_of_rl_cai_is_found(tmp_path: Path) -> None:
    with standin(*AT_ONCE) as server:
        run = RlCai(tmp_path, server.url, judge_url=server.url).prepare(10)
        assert run.run() == 0, run.said()
    found = check(run, LENGTHS)
    assert (found.due, found.rows, found.lost, found.doubled, found.mislabeled) == (10, 10, 0, 0, 0)
    path = tmp_path / COMPARISONS
    rows = [row for _, row in read_jsonl(path)]
    pair = next(pair for row in rows for pair in row["pairs"])
    pair["chosen"], pair["rejected"] = pair["rejected"], pair["chosen"]
    write_jsonl(path, rows, overwrite=True)
    assert check(run, LENGTHS).mislabeled == 1


def test_a_leak_under_bursts_is_found_and_bursts_alone_are_not() -> None:
    def growth(per_second: float) -> tuple[float, float, float]:
        rng = random.Random(1)
        watched = Watched([(t, 50 + per_second * t + rng.choice((0, 0, 0, 6)), 30) for t in range(3600)])
        assert watched.growth(2) == (0, 0, 0) and watched.most(2) == 30
        return watched.growth(1)

    assert growth(0.01)[0] == pytest.approx(0.01 * 0.8 * 3600, rel=0.05)
    assert abs(growth(0.0)[0]) < 0.5


def test_disturbances_of_a_short_run_come_sooner() -> None:
    usual = Moments("a", 60).next()
    assert 20 <= usual <= 60 and Moments("a", 0.5).next() == pytest.approx(usual / 6)
