# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Faults, kills, outages and changes, through the real command and a real socket: nothing lost, the same bytes."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from benchmarks.command import LEFT_OUT, REVISIONS, SlCai
from benchmarks.standin import Running, standin
from benchmarks.workload import CALLS
from nemo_aligner_cai.constitution import packaged
from nemo_aligner_cai.files import read_jsonl

ROWS = 400
REPLIES = ("--median-tokens", "60", "--sigma", "0.6", "--cache-tokens", "0", "--prefill-seconds", "0")
AT_ONCE = (*REPLIES, "--time-scale", "0")
KILLS = 30
FAULTS = ("429", "500", "503", "reset", "hang", "malformed", "truncated", "empty", "utf8")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of a run without any fault."""
    with standin(*AT_ONCE) as server:
        run = SlCai(tmp_path_factory.mktemp("undisturbed"), server.url).prepare(ROWS)
        assert run.run() == 0, run.said()
        stats = server.stats()
    assert (stats["requests"], stats["repeated"]) == (CALLS * ROWS, 0)
    files = run.outputs()
    assert files[REVISIONS].count(b"\n") == ROWS and files[LEFT_OUT] == b""
    return files


def assert_same(files: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Like ==, but a failure names the files in place of showing them."""
    assert sorted(files) == sorted(expected)
    assert [name for name in files if files[name] != expected[name]] == []


def test_one_percent_of_every_fault_leaves_the_bytes_of_a_run_without(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    faults = [part for kind in FAULTS for part in ("--fault", f"{kind}=0.01")]
    with standin(*AT_ONCE, *faults, "--retry-after", "0.1") as server:
        run = SlCai(tmp_path, server.url).prepare(ROWS)
        code, stats = run.run("--request-timeout", "2"), server.stats()
    assert set(stats["faults"]) == set(FAULTS), "each kind has hit"
    assert code == 0, run.said()
    assert_same(run.outputs(), undisturbed)
    assert stats["repeated"] >= sum(stats["faults"].values()), "what was hit is asked again"


def answered(server: Running) -> int:
    return server.stats()["answered"]


def test_killed_thirty_times_and_resumed_it_writes_the_same_bytes(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    moments = sorted(random.Random(30).sample(range(CALLS * ROWS * 9 // 10), KILLS))
    with standin(*REPLIES, "--slots", "8", "--token-seconds", "0.0005") as server:
        run = SlCai(tmp_path, server.url, concurrency=8).prepare(ROWS)
        for number, moment in enumerate(moments):
            process = run.start(*["--resume"] * (number > 0))
            # At least one more answer than the run before: a process that is still being started loses nothing.
            moment = max(moment, answered(server) + 1)
            while answered(server) < moment:
                assert process.poll() is None, run.said()
                time.sleep(0.01)
            process.kill()
            process.wait()
        code, stats = run.run("--resume"), server.stats()
    assert code == 0, run.said()
    assert_same(run.outputs(), undisturbed)
    assert stats["contents"] == CALLS * ROWS
    assert 0 < stats["repeated"] <= KILLS * run.concurrency, "only what was in flight is asked again"


def test_a_server_that_is_away_is_waited_for(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    with standin(*REPLIES, "--token-seconds", "0.005") as server:
        run = SlCai(tmp_path, server.url).prepare(ROWS)
        process = run.start()
        while (before := answered(server)) < ROWS:
            assert process.poll() is None, run.said()
            time.sleep(0.02)
        server.go_away(5)
        assert process.wait() == 0, run.said()
    assert before < CALLS * ROWS
    assert_same(run.outputs(), undisturbed)


def principles(run: SlCai) -> Counter[str]:
    return Counter(row["principle"] for _, row in read_jsonl(run.folder / REVISIONS))


def test_a_changed_principle_repeats_its_critiques_and_revisions_and_no_answer(tmp_path: Path) -> None:
    constitution = yaml.safe_load(packaged().read_text(encoding="utf-8"))
    changed = constitution["principles"][5]
    changed["critique"] += " Be brief."
    edited = tmp_path / "edited.yaml"
    edited.write_text(yaml.safe_dump(constitution), encoding="utf-8")
    with standin(*AT_ONCE) as server:
        run = SlCai(tmp_path / "run", server.url).prepare(ROWS)
        assert run.run() == 0, run.said()
        before, rows = server.stats(), run.outputs()[REVISIONS].splitlines()
        touched = principles(run)[changed["id"]]
        assert ROWS // 32 < touched < ROWS // 8, "about one prompt in sixteen"
        assert run.run("--resume", "--critique-revision-instructions-path", str(edited)) == 0, run.said()
        after = server.stats()
    answers, critiques, revisions = before["by_messages"]
    added = {step: after["by_messages"][step] - before["by_messages"][step] for step in after["by_messages"]}
    assert added == {answers: 0, critiques: touched, revisions: touched}
    assert after["repeated"] == 0
    differing = [new for old, new in zip(rows, run.outputs()[REVISIONS].splitlines(), strict=True) if old != new]
    assert len(differing) == touched == principles(run)[changed["id"]]
