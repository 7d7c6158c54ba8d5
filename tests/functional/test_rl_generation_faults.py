# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""RL-CAI under faults, kills and outages, through the real command and real sockets: no wrong label, no lost pair."""

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import COMPARISONS, RlCai
from benchmarks.standin import Running, standin
from nemo_aligner_cai.files import read_json, read_jsonl
from nemo_aligner_cai.judges import base as j
from tests.unit.fake_servers import FakeNemo, FakeOpenAI
from tests.unit.rl_run import numbers_in, policy, red_team_flags, run, scoring_judge

ROWS = 60
KILLS = 30
REPLIES = (
    *("--median-tokens", "40", "--sigma", "0.6", "--most-tokens", "200"),
    *("--cache-tokens", "0", "--prefill-seconds", "0"),
)
AT_ONCE = (*REPLIES, "--time-scale", "0")
FAULTS = ("429", "500", "503", "reset")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of a run without any fault."""
    with standin(*AT_ONCE) as server, standin(*AT_ONCE) as judge_server:
        run = RlCai(tmp_path_factory.mktemp("undisturbed"), server.url, judge_url=judge_server.url).prepare(ROWS)
        assert run.run() == 0, run.said()
        assert server.stats()["repeated"] == 0 and server.stats()["requests"] == 4 * ROWS
        assert judge_server.stats()["repeated"] <= 1, "the probe"
    return run.outputs()


def assert_same(files: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Like ==, but a failure names the files in place of showing them."""
    assert sorted(files) == sorted(expected)
    assert [name for name in files if files[name] != expected[name]] == []


def test_a_fifth_of_errors_hangs_and_an_outage_leave_the_bytes_of_a_run_without(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    faults = [part for kind in FAULTS for part in ("--fault", f"{kind}=0.05")]
    faults += ["--fault", "hang=0.01", "--retry-after", "0.1"]
    pace = ("--token-seconds", "0.005")
    with standin(*AT_ONCE, *faults) as server, standin(*REPLIES, *faults, *pace) as judge_server:
        run = RlCai(tmp_path, server.url, judge_url=judge_server.url).prepare(ROWS)
        process = run.start("--request-timeout", "5")
        while judge_server.stats()["answered"] < ROWS:
            assert process.poll() is None, run.said()
            time.sleep(0.02)
        judge_server.go_away(5)
        assert process.wait() == 0, run.said()
        assert set(judge_server.stats()["faults"]) == {*FAULTS, "hang"}, "each kind has hit"
    assert_same(run.outputs(), undisturbed)


def answered(*servers: Running) -> int:
    return sum(server.stats()["answered"] for server in servers)


def test_killed_thirty_times_and_resumed_it_writes_the_same_bytes(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    pace = ("--slots", "8", "--token-seconds", "0.002")
    calls = ROWS * (4 + 3 * 2 * 2)
    moments = sorted(random.Random(30).sample(range(calls * 8 // 10), KILLS))
    with standin(*REPLIES, *pace) as server, standin(*REPLIES, *pace) as judge_server:
        run = RlCai(tmp_path, server.url, 8, judge_url=judge_server.url).prepare(ROWS)
        for number, moment in enumerate(moments):
            process = run.start(*["--resume"] * (number > 0))
            # Some more answers than the run before: a process that is still being started loses nothing.
            moment = max(moment, answered(server, judge_server) + 2)
            while answered(server, judge_server) < moment:
                assert process.poll() is None, run.said()
                time.sleep(0.01)
            process.kill()
            process.wait()
        assert run.run("--resume") == 0, run.said()
        repeated = server.stats()["repeated"] + judge_server.stats()["repeated"]
    assert_same(run.outputs(), undisturbed)
    probes = KILLS + 1
    assert probes <= repeated <= KILLS * 2 * run.concurrency + probes, "only what was in flight is asked again"


def digest(body: dict[str, Any]) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(body["messages"]).encode()).digest()[:8], "big")


def bad_verdicts(reply: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """A fifth of the questions get no verdict, however often they are asked, but what looks like one."""

    def judge(body: dict[str, Any]) -> Any:
        noise = ("I cannot say.", 'They wrote "(A)".', "(A) and (B)", '{"chosen": 1, "rejected": 2}', "**(B)**")
        return noise[digest(body) % 25] if digest(body) % 25 < len(noise) else reply(body)

    return judge


class Faults:
    """A fifth of the first attempts at each content fails; for a while, the server is away; one attempt hangs."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.away_until = 0.0

    def __call__(self, body: dict[str, Any]) -> int | str | None:
        name = json.dumps(body, sort_keys=True)
        self.attempts[name] += 1
        if sum(self.attempts.values()) == 60:
            self.away_until = time.monotonic() + 3
        fault = self._fault(random.Random(f"{name} {self.attempts[name]}").random(), self.attempts[name])
        self.injected[str(fault)] += fault is not None
        return fault

    def _fault(self, drawn: float, attempt: int) -> int | str | None:
        if time.monotonic() < self.away_until:
            return 503
        if sum(self.attempts.values()) in (20, 90):
            return "hang"
        kinds = (500, 429, "garbage", "reset")
        return kinds[int(drawn * 20)] if drawn < 0.2 and attempt < 3 else None


def test_bad_verdicts_and_errors_make_no_wrong_label_and_lose_no_pair(tmp_path: Path) -> None:
    more = ["--judge", "multiple-choice", "--pairs", "all", "--request-timeout", "0.9"]

    def judged(folder: Path, faults: Faults | None) -> tuple[bytes, dict[str, int]]:
        folder.mkdir()
        flags = red_team_flags(folder, prompts=24)
        with FakeNemo(policy) as server, FakeOpenAI(bad_verdicts(scoring_judge())) as judge_server:
            if faults is not None:
                judge_server.fault_of = faults
            assert run(flags, server, judge_server, *more) == 0
        facts = read_json(folder / "out" / "cai_manifest.json")["summary"]["facts"]
        return (folder / COMPARISONS).read_bytes(), facts

    calm, facts = judged(tmp_path / "calm", None)
    faults = Faults()
    hit, facts_of_hit = judged(tmp_path / "hit", faults)
    assert hit == calm and facts_of_hit == facts
    assert set(faults.injected) >= {"500", "429", "garbage", "reset", "503", "hang"}

    unparsed = kept = 0
    for _, row in read_jsonl(tmp_path / "hit" / COMPARISONS):
        silent = {frozenset(v["shown"]) for v in row["verdicts"] if v["better"] is None}
        unparsed += len(silent)
        kept += len(row["pairs"])
        numbers = {candidate["key"]: numbers_in(candidate["text"]) for candidate in row["candidates"]}
        for pair in row["pairs"]:
            assert numbers[pair["chosen_key"]] > numbers[pair["rejected_key"]]
    assert facts[j.JUDGED] == 24 * 6 == kept + unparsed
    assert facts[j.KEPT] == kept and facts[j.UNPARSED] == unparsed and 30 < unparsed < 80
    assert j.TIES not in facts and facts[j.UNPARSED_VOTES] >= 5 * unparsed
