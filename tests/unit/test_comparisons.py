# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.judges import base as j
from nemo_aligner_cai.judges.chain_of_thought import chain_of_thought
from nemo_aligner_cai.judges.multiple_choice import multiple_choice
from nemo_aligner_cai.judges.settings import JudgeSettings
from nemo_aligner_cai.models import (
    Completion,
    ModelClient,
    NemoServerClient,
    Request,
    Sampling,
    ScriptedBatchClient,
    ScriptedClient,
)
from nemo_aligner_cai.prompts import Prompt
from nemo_aligner_cai.stages.comparisons import (
    ComparisonPipeline,
    candidate_keys,
    generate_comparisons,
    near_identical,
)
from tests.unit.fake_servers import FakeNemo

RULES = Constitution(tuple(Principle(f"p{n}", "", "", f"rule {n}?") for n in range(4)), "four")
PROMPTS = [Prompt.of(Conversation.of_user(f"bad thing {n}")) for n in range(30)]
UPSTREAM = (0.01, 0.51, 1.01, 1.51)


def play(request: Request) -> Completion:
    """Policy and judge in one: replies carry a number, and the judge prefers the higher one."""
    if request.choices:
        return letter(request.conversation.messages[-1].content)
    rng = random.Random(request.sampling.seed)
    return Completion(f"thought number {rng.randrange(1000)} of them", "stop")


def letter(text: str, p: float = 0.9) -> Completion:
    numbers = [int(line.split("thought number ")[1].split()[0]) for line in text.splitlines() if "thought n" in line]
    p = p if numbers[0] > numbers[1] else 1 - p
    return Completion("", "choices", choice_logprobs={"(A)": math.log(p), "(B)": math.log(1 - p)})


def generate(
    folder: Path, policy: ModelClient, judge_model: ModelClient | None = None, resume: bool = False, **kwargs: Any
) -> Summary:
    settings = {
        "judge": multiple_choice(JudgeSettings(constitution=RULES, seed=5)),
        "sampling": Sampling(max_tokens=64, top_k=50),
        "temperatures": UPSTREAM,
        "seed": 5,
    } | kwargs

    async def run() -> Summary:
        try:
            summary = await generate_comparisons(
                PROMPTS,
                ComparisonPipeline(policy, judge_model or policy, **settings),
                out_path=folder / "raw.jsonl",
                journal_path=folder / "raw.journal.jsonl",
                run=RunSettings(resume=resume, seed=settings["seed"]),
            )
        finally:
            await policy.close()
        summary.check(0.01)
        return summary

    return asyncio.run(run())


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_candidates_are_drawn_at_their_temperatures_and_the_judge_chooses(tmp_path: Path) -> None:
    client = ScriptedClient(play)
    summary = generate(tmp_path, client)
    raw = rows(tmp_path / "raw.jsonl")
    assert summary.counts.written == len(raw) == 30
    temperatures = [r.sampling.temperature for r in client.requests if not r.choices]
    assert sorted(temperatures) == sorted(UPSTREAM * 30)
    assert all(r.sampling.seed is not None and r.sampling.top_k == 50 for r in client.requests if not r.choices)
    for row in raw:
        (pair,) = row["pairs"]
        numbers = {c["key"]: int(c["text"].split()[2]) for c in row["candidates"]}
        assert numbers[pair["chosen_key"]] == max(numbers.values())
        assert numbers[pair["rejected_key"]] == min(numbers.values())
        assert pair["probability"] == pytest.approx(0.9) and pair["principle"] in {"p0", "p1", "p2", "p3"}
        assert {c["key"] for c in row["candidates"]} <= {f"response_t={t}" for t in UPSTREAM}
    assert summary.facts[j.JUDGED] == 180 and summary.facts[j.KEPT] == 30
    assert j.position_rates(summary.facts) == {"position_flip_rate": 0.0, "first_position_rate": 0.5}


def test_no_position_belongs_to_a_temperature(tmp_path: Path) -> None:
    generate(tmp_path, ScriptedClient(play))
    firsts = [row["candidates"][0]["key"] for row in rows(tmp_path / "raw.jsonl")]
    assert len(set(firsts)) == 4


def test_samples_at_one_temperature_differ_by_their_seeds(tmp_path: Path) -> None:
    generate(tmp_path, ScriptedClient(play), temperatures=(1.0,) * 4)
    first = rows(tmp_path / "raw.jsonl")[0]
    assert sorted(c["key"] for c in first["candidates"]) == [f"response_{n}" for n in range(4)]
    assert len({c["text"] for c in first["candidates"]}) == 4


@pytest.mark.parametrize("make", [ScriptedClient, ScriptedBatchClient])
def test_interrupted_and_resumed_it_writes_the_same_bytes(make: Callable[..., ScriptedClient], tmp_path: Path) -> None:
    generate(tmp_path, make(play))
    journal, raw = (tmp_path / "raw.journal.jsonl").read_bytes(), (tmp_path / "raw.jsonl").read_bytes()
    rng = random.Random(1)
    for _ in range(6):
        (tmp_path / "raw.journal.jsonl").write_bytes(journal[: rng.randrange(len(journal))])
        generate(tmp_path, make(play), resume=True)
        assert (tmp_path / "raw.jsonl").read_bytes() == raw


def test_policy_and_judge_may_be_different_servers_of_different_kinds(tmp_path: Path) -> None:
    policy, judge_model = ScriptedBatchClient(play), ScriptedClient(play, name="judge")
    generate(tmp_path, policy, judge_model)
    assert all(not r.choices for r in policy.requests) and all(r.choices for r in judge_model.requests)
    assert len(judge_model.requests) == 30 * 6 * 2


def test_sampling_goes_on_while_the_judge_works(tmp_path: Path) -> None:
    order: list[str] = []

    class Slow(ScriptedClient):
        async def complete(self, request: Request) -> Completion:
            order.append("judge")
            await asyncio.sleep(0.002)
            return await super().complete(request)

    def sample(request: Request) -> Completion:
        order.append("sample")
        return play(request)

    generate(
        tmp_path,
        ScriptedClient(sample, concurrency=4),
        Slow(play, concurrency=4),
    )
    first_judged = order.index("judge")
    assert "sample" in order[first_judged:], "the policy samples for later prompts while earlier ones are judged"


def test_useless_candidates_are_left_out_and_counted(tmp_path: Path) -> None:
    texts = {
        0.01: Completion("thought number 1 of them", "stop"),
        0.51: Completion("Thought  number 1 of them ", "stop"),
        1.01: Completion(" ", "stop"),
        1.51: Completion("thought number 900 of", "length"),
    }

    def reply(request: Request) -> Completion:
        if request.choices:
            return play(request)
        if request.conversation.messages[0].content == "bad thing 0":
            return texts[request.sampling.temperature]
        return play(request)

    summary = generate(tmp_path, ScriptedClient(reply))
    assert summary.counts.skipped == {"fewer than two different candidates": 1}
    assert summary.facts["candidates that are near-identical"] >= 1
    assert summary.facts["candidates that are empty"] == 1
    assert summary.facts["candidates cut at the token limit"] == 1
    assert summary.facts["candidates sampled"] == 120


def test_near_identical() -> None:
    long = " ".join(f"w{n}" for n in range(100))
    assert near_identical(long, long + " more") and near_identical("No.", "no. ")
    assert not near_identical(long, " ".join(f"v{n}" for n in range(100)))
    assert not near_identical("i will help you", "i will not help you")
    assert not near_identical("", "x")


def test_a_biased_judge_gives_no_pairs_and_the_summary_says_so(tmp_path: Path) -> None:
    def reply(request: Request) -> Completion:
        if request.choices:
            return Completion("", "choices", choice_logprobs={"(A)": -0.01, "(B)": -5.0})
        return play(request)

    with pytest.raises(CaiError, match="30 a tie: the judge's two orders disagree"):
        generate(tmp_path, ScriptedClient(reply))
    raw = rows(tmp_path / "raw.jsonl")
    assert len(rows(tmp_path / "raw.left_out.jsonl")) == len(raw) == 30
    assert all(row["pairs"] == [] and len(row["candidates"]) == 4 for row in raw), "what it said is kept"
    assert all(v["better"] == v["shown"][0] for row in raw for v in row["verdicts"])


def test_a_judge_without_verdicts_is_a_fault(tmp_path: Path) -> None:
    def reply(request: Request) -> Completion:
        return Completion("I cannot say", "stop") if request.choices else play(request)

    with pytest.raises(CaiError, match="no verdict in the judge's answer"):
        generate(tmp_path, ScriptedClient(reply))


def test_a_judge_without_log_probabilities_is_asked_for_votes_and_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    def reply(request: Request) -> Completion:
        if "(A)" not in request.conversation.messages[-1].content:
            return play(request)
        if request.choices:
            return Completion("(A)", "stop")
        sure = letter(request.conversation.messages[-1].content, p=0.8).choice_logprobs
        assert sure is not None and request.sampling.temperature == 1.0
        drawn = random.Random(request.sampling.seed).random()
        return Completion("(A)" if drawn < math.exp(sure["(A)"]) else "(B)", "stop")

    summary = generate(tmp_path, ScriptedClient(reply))
    assert summary.facts[j.VOTES] == 30 * 6 * 2 * 5 and summary.facts[j.FLIPS] > 0
    raw = rows(tmp_path / "raw.jsonl")
    shares = {verdict["probability"] for row in raw for verdict in row["verdicts"]}
    assert shares == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}, "five votes each, with seeds of their own"
    journal, written = (tmp_path / "raw.journal.jsonl").read_bytes(), (tmp_path / "raw.jsonl").read_bytes()
    for share in (0.3, 0.7, 1.0):
        (tmp_path / "raw.journal.jsonl").write_bytes(journal[: int(len(journal) * share)])
        resumed = generate(tmp_path, ScriptedClient(reply), resume=True)
        assert (tmp_path / "raw.jsonl").read_bytes() == written
    assert resumed.calls == 0, "the second round is found in the journal like the first"


@pytest.mark.parametrize("make", [ScriptedClient, ScriptedBatchClient])
def test_rounds_of_reasoning_and_tournaments_are_steps_of_the_engine(
    make: Callable[..., ScriptedClient], tmp_path: Path
) -> None:
    def reply(request: Request) -> Completion:
        messages = request.conversation.messages
        if request.choices:
            return letter(messages[0].content)
        return Completion("Let me see.", "stop") if "(A)" in messages[0].content else play(request)

    judge = chain_of_thought(JudgeSettings(constitution=RULES, seed=5, pairs="tournament"))
    summary = generate(tmp_path, make(reply), judge=judge)
    assert summary.facts[j.JUDGED] == summary.facts[j.KEPT] == 30 * 3
    row = rows(tmp_path / "raw.jsonl")[0]
    assert {pair["probability"] for pair in row["pairs"]} == {0.6}
    assert {pair["explanation"] for pair in row["pairs"]} == {"Let me see."}
    steps = {json.loads(line).get("step") for line in (tmp_path / "raw.journal.jsonl").read_text().splitlines()}
    assert steps >= {"sample", "judge", "judge 2", "judge 4", "judge 5"} and "judge 3" not in steps
    before = (tmp_path / "raw.jsonl").read_bytes()
    again = generate(tmp_path, make(reply), judge=judge, resume=True)
    assert again.calls == 0 and (tmp_path / "raw.jsonl").read_bytes() == before


def test_every_temperature_is_checked_before_anything_is_asked() -> None:
    client = ScriptedClient()
    with pytest.raises(UsageError, match=r"temperature: .* -1"):
        ComparisonPipeline(
            client, client, multiple_choice(JudgeSettings(constitution=RULES)), Sampling(), (0.5, -1.0), 1
        )


def test_greedy_candidates_and_a_single_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--greedy"):
        generate(tmp_path, ScriptedClient(play), sampling=Sampling(greedy=True), temperatures=(1.0, 1.0))
    for sampling in (Sampling(greedy=True), Sampling(top_k=1)):
        with pytest.raises(UsageError, match="greedy candidates are identical"):
            generate(tmp_path, ScriptedClient(play), sampling=sampling, temperatures=(0.5, 1.0))
    with pytest.raises(UsageError, match="--num-responses"):
        generate(tmp_path, ScriptedClient(play), temperatures=(1.0,))


def test_on_nemo_servers_with_log_probabilities_and_faults(tmp_path: Path) -> None:
    def first_letter(prompt: str) -> float:
        numbers = [int(line.split("number ")[1].split()[0]) for line in prompt.splitlines() if "number" in line]
        return 0.95 if numbers[0] > numbers[1] else 0.05

    def reply(prompt: str, rng: random.Random | None) -> str:
        return f"thought number {rng.randrange(10**6) if rng else 0} of them"

    def once(folder: Path, faults: list[int | str | None]) -> Summary:
        with FakeNemo(reply, first_letter=first_letter) as server:
            server.faults = faults
            client = NemoServerClient("127.0.0.1", server.port, batch_size=16)
            summary = generate(folder, client)
            assert max(len(body["sentences"]) for body in server.bodies) <= 16
            return summary

    whole = once(tmp_path / "a", [])
    once(tmp_path / "b", [None, 500, None, "reset", 503, None, "truncated"])
    assert (tmp_path / "a/raw.jsonl").read_bytes() == (tmp_path / "b/raw.jsonl").read_bytes()
    assert whole.counts.written == 30
    for row in rows(tmp_path / "a/raw.jsonl"):
        numbers = [int(c["text"].split()[2]) for c in row["candidates"]]
        assert int(row["pairs"][0]["chosen"].split()[2]) == max(numbers)
        assert row["pairs"][0]["probability"] == pytest.approx(0.95)


def test_a14_temperatures_that_are_equal_in_six_digits_have_keys_of_their_own() -> None:
    assert candidate_keys((0.01, 0.51)) == ["response_t=0.01", "response_t=0.51"]
    assert len(set(candidate_keys((0.5000001, 0.5000002, 1.0)))) == 3
