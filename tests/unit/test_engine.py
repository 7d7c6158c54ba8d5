# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import asyncio
import gc
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.engine.engine import Engine, Outcome, SkipRecord, Step
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.models import (
    CallFailed,
    Completion,
    ModelClient,
    NemoServerClient,
    Request,
    RetryPolicy,
    Sampling,
    ScriptedBatchClient,
    ScriptedClient,
    ServerRefused,
)
from tests.unit.fake_servers import FakeNemo, FakeServer
from tests.unit.living import living


@dataclass(frozen=True)
class Note:
    id: str
    texts: tuple[str, ...] = ()


def step(name: str, client: ModelClient, *, samples: int = 1, greedy: bool = False) -> Step[Note]:
    def requests(note: Note) -> list[Request]:
        conversation = Conversation.of_user(note.id)
        for text in note.texts:
            conversation = conversation.with_turn(Role.ASSISTANT, text).with_turn(Role.USER, name)
        return [Request(conversation, Sampling(greedy=greedy, max_tokens=32)) for _ in range(samples)]

    def absorb(note: Note, completions: Sequence[Completion]) -> Note:
        if any("leave" in completion.text for completion in completions):
            raise SkipRecord("told to")
        return replace(note, texts=(*note.texts, " | ".join(completion.text for completion in completions)))

    return Step(name, client, requests, absorb)


def run(
    client: ModelClient,
    *,
    count: int = 10,
    journal: Path | None = None,
    resume: bool = False,
    steps: Callable[[ModelClient], list[Step[Note]]] | None = None,
    records: Iterator[Note] | None = None,
    seed: int = 1,
) -> tuple[list[Outcome[Note]], Engine]:
    async def go() -> tuple[list[Outcome[Note]], Engine]:
        opened = Journal.open(journal, resume=resume) if journal else None
        engine = Engine(seed=seed, journal=opened)
        outcomes: list[Outcome[Note]] = []
        chain = (
            steps(client) if steps else [step("one", client), step("two", client, samples=3), step("three", client)]
        )
        try:
            await engine.run(records or iter(Note(f"r{n}") for n in range(count)), chain, outcomes.append)
        finally:
            if opened:
                await opened.close()
            await client.close()
        return outcomes, engine

    return asyncio.run(go())


def test_outcomes_come_in_input_order_whatever_takes_how_long() -> None:
    class Slow(ScriptedClient):
        async def complete(self, request: Request) -> Completion:
            await asyncio.sleep(random.Random(repr(request)).random() * 0.01)
            return await super().complete(request)

    outcomes, engine = run(Slow(), count=50)
    assert [outcome.record.id for outcome in outcomes] == [f"r{n}" for n in range(50)]
    assert all(len(outcome.record.texts) == 3 and not outcome.skipped for outcome in outcomes)
    assert engine.stats.calls.total() == 250 and engine.stats.records == 50


@pytest.mark.parametrize("make", [ScriptedClient, ScriptedBatchClient])
def test_the_result_depends_on_seed_and_input_and_not_on_concurrency(
    make: Callable[..., ScriptedClient],
) -> None:
    results = [run(make(concurrency=concurrency))[0] for concurrency in (1, 2, 3, 50)]
    assert all(result == results[0] for result in results)
    assert run(make(), seed=2)[0] != results[0]
    texts = results[0][0].record.texts[1].split(" | ")
    assert len(set(texts)) == 3, "three samples of one prompt have three seeds"


def test_the_order_of_records_has_no_influence_on_a_record() -> None:
    forward, _ = run(ScriptedClient())
    backward, _ = run(ScriptedClient(), records=iter(Note(f"r{n}") for n in reversed(range(10))))
    assert {o.record.id: o.record for o in forward} == {o.record.id: o.record for o in backward}


def test_records_are_read_no_further_ahead_than_the_concurrency_needs() -> None:
    read = 0
    finished = 0

    def records() -> Iterator[Note]:
        nonlocal read
        for n in range(100):
            read += 1
            assert read - finished <= 9
            yield Note(f"r{n}")

    async def go() -> None:
        client = ScriptedClient(concurrency=2)

        def count(_: object) -> None:
            nonlocal finished
            finished += 1

        await Engine(seed=1).run(records(), [step("one", client)], count)

    asyncio.run(go())
    assert read == finished == 100


@pytest.mark.parametrize("make", [ScriptedClient, ScriptedBatchClient])
def test_resuming_after_any_cut_repeats_no_finished_call_and_gives_the_same_result(
    make: Callable[..., ScriptedClient], tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    whole, engine = run(make(), journal=path)
    content = path.read_bytes()
    made = engine.stats.calls.total()
    rng = random.Random(3)
    for size in [0, len(content), *(rng.randrange(len(content)) for _ in range(25))]:
        path.write_bytes(content[:size])
        client = make()
        again, engine = run(client, journal=path, resume=True)
        assert again == whole
        assert engine.stats.calls.total() + engine.stats.reused.total() == made
        lines = content[:size].count(b"\n")
        assert len(client.requests) <= made - lines + (4 if make is ScriptedBatchClient else 0)
        client = make()
        assert run(client, journal=path, resume=True)[0] == whole and client.requests == []


def test_batches_are_full_and_made_of_the_input_order() -> None:
    client = ScriptedBatchClient(batch_size=4)
    run(client, count=20)
    # Twenty records in blocks of 16 and 4: one call each, then three samples each, then one again.
    assert sorted(client.batches) == [4] * (5 + 15 + 5)


def test_a_batch_is_made_of_prompts_of_like_length() -> None:
    client = ScriptedBatchClient(batch_size=2)
    lengths = [9, 1, 8, 2, 7, 3, 6, 4, 14, 11, 16, 13, 10, 15, 5, 12]
    records = [Note("x" * length) for length in lengths]
    outcomes, _ = run(client, records=iter(records), steps=lambda c: [step("one", c)])
    asked = [len(request.conversation.messages[-1].content) for request in client.requests]
    assert sorted(zip(asked[::2], asked[1::2], strict=True)) == sorted(
        (first, second)
        for block in (sorted(lengths[:8]), sorted(lengths[8:]))
        for first, second in zip(block[::2], block[1::2], strict=True)
    )
    assert [outcome.record.id for outcome in outcomes] == [record.id for record in records]


def test_chains_are_finished_first_and_once_all_have_begun_kept_short() -> None:
    client = ScriptedClient(concurrency=2)
    run(client, count=60)
    priorities = [(r.conversation.messages[0].content, r.priority) for r in client.requests]
    begun = [priority for name, priority in priorities if int(name[1:]) < 40]
    assert set(begun) == {0, -1, -2}, "what has begun goes first while its prefix is in the servers' caches"
    assert max(priority for name, priority in priorities if int(name[1:]) >= 55) > 0, "now late steps wait"


def test_a_record_left_out_leaves_the_chain_and_the_next_batch() -> None:
    def reply(request: Request) -> str:
        return "leave" if request.conversation.messages[0].content == "r2" else f"seed {request.sampling.seed}"

    client = ScriptedBatchClient(reply, batch_size=4)
    outcomes, engine = run(client, count=4)
    assert [str(outcome.skipped) for outcome in outcomes] == ["None", "None", "told to", "None"]
    assert engine.stats.skipped == 1
    assert sorted(client.batches) == [1, 3, 4, 4, 4], "four, then nine samples of the three that stay, then three"


def test_a_call_that_fails_leaves_its_record_out_as_a_fault() -> None:
    def reply(request: Request) -> str | CallFailed:
        return CallFailed("HTTP 500", "boom") if request.conversation.messages[-1].content == "r1" else "x"

    outcomes, engine = run(ScriptedClient(reply), count=3)
    skipped = outcomes[1].skipped
    assert skipped is not None and skipped.fault and skipped.reason == "one call failed: HTTP 500"
    assert engine.stats.failed == 1 and [o.skipped is None for o in outcomes] == [True, False, True]


def test_dropped_records_do_not_wait_for_the_garbage_collector() -> None:
    def reply(request: Request) -> str | CallFailed:
        first = request.conversation.messages[0].content
        return CallFailed("HTTP 500", "boom") if first == "r1" else "leave" if first == "r2" else "x"

    gc.collect()
    gc.disable()
    try:
        outcomes, _ = run(ScriptedClient(reply), count=4)
        assert [outcome.skipped is None for outcome in outcomes] == [True, False, False, True]
        del outcomes
        assert not living(Note, SkipRecord)
    finally:
        gc.enable()


def test_a_refusal_ends_the_run_and_leaves_a_journal_to_resume(tmp_path: Path) -> None:
    class Refusing(ScriptedClient):
        async def complete(self, request: Request) -> Completion:
            if len(self.requests) >= 7:
                raise ServerRefused("HTTP 401")
            return await super().complete(request)

    path = tmp_path / "journal"
    with pytest.raises(ServerRefused):
        run(Refusing(), journal=path)
    client = ScriptedClient()
    outcomes, engine = run(client, journal=path, resume=True)
    assert engine.stats.reused.total() >= 7 and len(client.requests) == 50 - engine.stats.reused.total()
    assert outcomes == run(ScriptedClient())[0]


def test_a_refusal_ends_the_run_while_earlier_records_still_wait() -> None:
    class Refusing(ScriptedClient):
        async def complete(self, request: Request) -> Completion:
            if request.conversation.messages[0].content == "r0":
                await asyncio.sleep(60)
            if request.conversation.messages[0].content == "r3":
                raise ServerRefused("HTTP 401")
            return await super().complete(request)

    async def soon() -> None:
        client = Refusing()
        records = (Note(f"r{number}") for number in range(1000))
        with pytest.raises(ServerRefused):
            await asyncio.wait_for(Engine(seed=1).run(records, [step("one", client)], lambda outcome: None), 30)
        assert len(client.requests) < 40, "no more than were under way"

    asyncio.run(soon())


def test_greedy_calls_are_reused_one_by_one_from_batches_that_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    def greedy(client: ModelClient) -> list[Step[Note]]:
        return [step("one", client, greedy=True)]

    run(ScriptedBatchClient(), journal=path, steps=greedy, count=8)
    client = ScriptedBatchClient()
    records = iter(Note(name) for name in ("r0", "new1", "r2", "r3", "new2", "r5", "r6", "r7"))
    run(client, journal=path, steps=greedy, records=records, resume=True)
    assert sorted(r.conversation.messages[0].content for r in client.requests) == ["new1", "new2"]


def test_sampled_batches_that_have_changed_are_repeated_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal"

    def sampled(client: ModelClient) -> list[Step[Note]]:
        return [step("one", client)]

    run(ScriptedBatchClient(), journal=path, steps=sampled, count=32)
    client = ScriptedBatchClient()
    records = [Note("new" if number == 1 else f"r{number}") for number in range(32)]
    again, engine = run(client, journal=path, steps=sampled, records=iter(records), resume=True)
    assert len(client.requests) == 12 and engine.stats.reused.total() == 20, "of two blocks of four batches three"
    assert again == run(ScriptedBatchClient(), steps=sampled, records=iter(records))[0]


def test_different_samplings_do_not_share_a_batch() -> None:
    client = ScriptedBatchClient(batch_size=8)

    def requests(note: Note) -> list[Request]:
        return [Request(Conversation.of_user(note.id), Sampling(temperature=t)) for t in (0.01, 1.0)]

    run(client, count=4, steps=lambda c: [Step("s", c, requests, lambda note, _: note)])
    assert client.batches == [4, 4]


def test_choices_count_as_so_many_sentences() -> None:
    client = ScriptedBatchClient(batch_size=4)

    def requests(note: Note) -> list[Request]:
        return [Request(Conversation.of_user(note.id), Sampling(), choices=("(A)", "(B)"))]

    run(client, count=4, steps=lambda c: [Step("s", c, requests, lambda note, _: note)])
    assert client.batches == [2, 2]


def test_the_result_from_nemos_protocol_survives_faults_and_interruptions(tmp_path: Path) -> None:
    retry_policy = RetryPolicy(timeout=0.5, initial_wait=0.01, max_wait=0.05)

    def client(server: FakeServer) -> NemoServerClient:
        return NemoServerClient("127.0.0.1", server.port, batch_size=4, retry_policy=retry_policy)

    with FakeNemo() as server:
        whole, _ = run(client(server), count=18)
        assert {len(body["sentences"]) for body in server.bodies} <= {2, 4, 6}
        server.faults = [None, 503, None, "reset", None, None, "garbage", 429, None, "truncated"]
        path = tmp_path / "journal"
        assert run(client(server), count=18, journal=path)[0] == whole
        content = path.read_bytes()
        for part in (3, 5, 7):
            path.write_bytes(content[: len(content) * part // 10])
            assert run(client(server), count=18, journal=path, resume=True)[0] == whole
    assert all(re.fullmatch(r"reply [0-9a-f]{8} \d+", o.record.texts[0]) for o in whole)


def test_the_servers_lock_is_never_idle() -> None:
    with FakeNemo(delay=0.01) as server:
        client = NemoServerClient("127.0.0.1", server.port, batch_size=4)
        run(client, count=40)
        assert server.most_busy >= 2, "the next batch waits at the lock while one is generated"
