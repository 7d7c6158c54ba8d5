# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import logging
import re

import pytest

from nemo_aligner_cai.console import progress
from nemo_aligner_cai.console.progress import Lines, open_progress
from nemo_aligner_cai.engine.progress import Prices, ProgressReporter, RunStats
from nemo_aligner_cai.models import ClientStats


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_calls_tokens_cost_and_the_time_that_is_left(clock: list[float]) -> None:
    policy, judge = ClientStats(retries=2, in_flight=5, prompt_tokens=4000, completion_tokens=1000), ClientStats()
    judge.in_flight, judge.completion_tokens = 3, 500
    reporter = ProgressReporter(
        Lines("", "record", 100), [policy, judge], total=100, prices=Prices(read=0.5, written=2.0)
    )
    stats = RunStats(records=10, skipped=1, failed=1, steps_done=60, steps=3, started=90.0)
    stats.calls.update(answer=20, critique=10)
    stats.reused.update(answer=7)
    line = reporter.line(stats)
    assert line == (
        "1 dropped, 30 calls, 7 reused, 1 failed, 2 retries, 8 in flight, 3.0 calls/s, 150 tokens/s, cost 0.01, "
        "40 s left"
    )
    clock[0] = 110.0
    assert reporter.line(stats).endswith("80 s left"), "240 steps of 300 are left, 60 took 20 seconds"


def test_off_a_terminal_a_line_comes_every_few_seconds(
    clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    shown = ProgressReporter(open_progress("SL-CAI", "record", 24), [], total=24)
    for second in range(25):
        clock[0] = 100.0 + second
        shown.update(RunStats(records=second, started=100.0))
    lines = [record.getMessage() for record in caplog.records]
    assert [re.match(r"SL-CAI: record (\d+) of 24: ", line)[1] for line in lines] == ["10", "20", "24"]  # type: ignore[index]
