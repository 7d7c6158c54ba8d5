# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The stand-in server that benchmarks and fault tests rely on does what it says."""

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import aiohttp
import pytest

from benchmarks.jumping_time import in_jumping_time
from benchmarks.standin import standin
from benchmarks.standin.faults import KINDS, Faults
from benchmarks.standin.replies import BYTES_PER_TOKEN, Lengths, content_digest, reply_to
from benchmarks.standin.server import HOST, StandIn
from benchmarks.standin.slots import Job, Pace, PrefixCache, Slots
from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.models import OpenAIClient, Request, RetryPolicy, Sampling

T = TypeVar("T")
AT_ONCE = Pace(time_scale=0)


def chat(text: str = "hello", **settings: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 1024, **settings}


def reply(**settings: Any) -> Any:
    body = chat(**settings)
    return reply_to(body, content_digest(body), Lengths())


def served(work: Callable[[StandIn, aiohttp.ClientSession, str], Coroutine[Any, Any, T]], **settings: Any) -> T:
    async def run() -> T:
        server = StandIn(**settings)
        await server.start()
        # Only a server that hangs is given up.
        timeout = aiohttp.ClientTimeout(total=0.3 if "hang" in server.faults.rates else 60)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                return await work(server, session, f"http://{HOST}:{server.port}/v1/chat/completions")
        finally:
            server.close()

    return asyncio.run(run())


# --- what it says


def test_a_reply_depends_on_content_and_seed_alone() -> None:
    first = reply(text="a", seed=1)
    assert first == reply(text="a", seed=1) == reply(seed=1, text="a")
    others = {reply(text="a", seed=2).text, reply(text="b", seed=1).text, reply(text="a", seed=1, top_p=0.5).text}
    assert len(others | {first.text}) == 4


def test_lengths_are_log_normal_with_a_heavy_tail_that_is_cut() -> None:
    lengths = Lengths(median=100, sigma=0.8, most=500)
    drawn = sorted(lengths.tokens(content_digest({"n": number})) for number in range(2000))
    assert 90 < drawn[1000] < 110
    assert drawn[-1] == 500 and drawn[int(0.97 * 2000)] > 400
    assert {Lengths(median=7, sigma=0).tokens(content_digest({"n": number})) for number in range(9)} == {7}


def test_a_reply_has_the_tokens_that_it_counts_and_stops_at_max_tokens() -> None:
    whole, cut = reply(seed=3), reply(seed=3, max_tokens=4)
    assert whole.finish_reason == "stop" and len(whole.text) + 1 == BYTES_PER_TOKEN * whole.tokens
    assert (cut.finish_reason, cut.tokens, len(cut.text) + 1) == ("length", 4, 16)


def test_a_json_schema_is_kept_to() -> None:
    properties = {
        "verdict": {"enum": ["A", "B"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "sure": {"type": "boolean"},
        "reasons": {"type": "array", "items": {"type": "string"}},
    }
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "v", "schema": {"type": "object", "properties": properties}},
    }
    said = json.loads(reply(response_format=schema).text)
    assert list(said) == list(properties)
    assert said["verdict"] in ("A", "B") and 1 <= said["score"] <= 5 and isinstance(said["sure"], bool)
    assert isinstance(said["reasons"][0], str)


def test_a_judges_choices_come_with_probabilities_that_sum_to_one() -> None:
    async def ask(server: StandIn, session: aiohttp.ClientSession, url: str) -> Any:
        client = OpenAIClient(url, "m")
        question = Conversation.of_user("Which is better?\n(A) one\n(B) two")
        try:
            return await client.complete(Request(question, Sampling(), choices=("(A)", "(B)")))
        finally:
            await client.close()

    scores = served(ask, pace=AT_ONCE).choice_logprobs
    assert sum(math.exp(scores[choice]) for choice in ("(A)", "(B)")) == pytest.approx(1.0)
    one = reply(logprobs=True, top_logprobs=5, max_tokens=1)
    assert one.text in ("A", "B") and one.tokens == 1
    assert {entry["token"] for entry in one.logprobs["content"][0]["top_logprobs"]} == {"A", "B"}


# --- how long it takes


def run_jobs(pace: Pace, tokens: list[int]) -> tuple[list[tuple[int, float]], float]:
    """(job, time of its end) in the order of their ends, and the slot-seconds that were used."""

    async def run() -> tuple[list[tuple[int, float]], float]:
        slots, ends = Slots(pace), list[tuple[int, float]]()
        loop = asyncio.get_running_loop()
        over = asyncio.Event()

        def done(number: int) -> None:
            ends.append((number, loop.time()))
            if len(ends) == len(tokens):
                over.set()

        for number, count in enumerate(tokens):
            slots.submit(Job(b"", b"", count, lambda _, number=number: done(number)))
        await over.wait()
        return ends, slots.busy

    return in_jumping_time(run())


def test_slots_are_filled_in_order_of_arrival_and_freed_one_by_one() -> None:
    ends, busy = run_jobs(Pace(slots=2, token_seconds=1.0), [5, 2, 1, 1])
    assert [(number, round(end)) for number, end in ends] == [(1, 2), (2, 3), (3, 4), (0, 5)]
    assert busy == pytest.approx(9.0)


def test_more_jobs_than_slots_take_as_long_as_the_slots_need() -> None:
    ends, busy = run_jobs(Pace(slots=8, token_seconds=1.0, time_scale=0.5), [10] * 32)
    assert ends[-1][1] == pytest.approx(20.0)
    assert busy == pytest.approx(8 * 20.0)


def test_a_prompt_is_read_before_the_first_token_unless_the_cache_knows_it() -> None:
    async def run() -> tuple[float, float]:
        slots = Slots(Pace(slots=1, token_seconds=1.0, prefill_seconds=0.5))
        loop = asyncio.get_running_loop()
        seconds: list[float] = []
        for _ in range(2):
            started, over = loop.time(), asyncio.Event()
            prompt = b"x" * (BYTES_PER_TOKEN * 32)
            slots.submit(Job(prompt, prompt, 3, lambda _, over=over: over.set()))
            await over.wait()
            seconds.append(loop.time() - started)
        return seconds[0], seconds[1]

    assert in_jumping_time(run()) == pytest.approx((32 * 0.5 + 3, 3))


def test_the_slot_of_a_client_that_is_gone_goes_to_the_next() -> None:
    async def run() -> tuple[float, float]:
        slots, over = Slots(Pace(slots=1, token_seconds=1.0)), asyncio.Event()
        first = Job(b"", b"", 100, lambda _: None)
        slots.submit(first)
        slots.submit(Job(b"", b"", 5, lambda _: over.set()))
        await asyncio.sleep(10)
        slots.abandon(first)
        await over.wait()
        return asyncio.get_running_loop().time(), slots.busy

    assert in_jumping_time(run()) == pytest.approx((15, 15))


def test_the_prefix_cache_knows_whole_blocks_and_forgets_the_oldest() -> None:
    cache = PrefixCache(tokens=8, block_tokens=2)
    block = 2 * BYTES_PER_TOKEN
    first, second = b"a" * (3 * block + 1), b"a" * (2 * block) + b"b" * block
    assert cache.read(first) == 0
    assert cache.read(first) == 6, "three whole blocks"
    assert cache.read(second) == 4, "what both begin with"
    assert cache.read(b"b" * block) == 0, "a block is known by what stands before it"
    assert cache.read(first) == 4, "the end of the oldest text had to go"
    assert PrefixCache(tokens=0, block_tokens=2).read(first) == 0


# --- what goes wrong


def test_faults_belong_to_content_and_attempt() -> None:
    faults = Faults.parse(["500=0.1", "hang=0.05"])
    digests = [content_digest({"n": number}) for number in range(4000)]
    hit = [faults.of(digest, 1) for digest in digests]
    assert hit == [faults.of(digest, 1) for digest in digests]
    assert 300 < hit.count("500") < 500 and 130 < hit.count("hang") < 270
    again = [faults.of(digest, 2) for digest, kind in zip(digests, hit, strict=True) if kind]
    assert again.count(None) > 0.75 * len(again)
    other = Faults(faults.rates, seed=1)
    again = [other.of(digest, 1) for digest, kind in zip(digests, hit, strict=True) if kind]
    assert again.count(None) > 0.75 * len(again), "a server that starts again has other faults"


@pytest.mark.parametrize("setting", ["flood=0.1", "500=2", "hang=-1", "500=x", "500"])
def test_a_fault_that_there_is_not_is_refused(setting: str) -> None:
    with pytest.raises(ValueError):
        Faults.parse([setting])


STATUS = {"429": 429, "500": 500, "503": 503}
RAISED: dict[str, type[BaseException]] = {
    "reset": aiohttp.ClientError,
    "hang": asyncio.TimeoutError,
    "malformed": ValueError,
    "utf8": UnicodeDecodeError,
    "truncated": aiohttp.ClientPayloadError,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_reaches_the_client_as_what_it_is(kind: str) -> None:
    async def ask(server: StandIn, session: aiohttp.ClientSession, url: str) -> tuple[int, Any, Any]:
        async with session.post(url, json=chat()) as response:
            content = await response.read()
            return response.status, response.headers.get("Retry-After"), json.loads(content.decode())

    settings: dict[str, Any] = {"pace": AT_ONCE, "faults": Faults({kind: 1.0}), "retry_after": 0.5}
    settings["slow_seconds"] = 0.2
    if kind in RAISED:
        with pytest.raises(RAISED[kind]):
            served(ask, **settings)
        return
    started = time.monotonic()
    status, retry_after, answer = served(ask, **settings)
    assert (time.monotonic() - started >= 0.2) == (kind == "slow")
    assert status == STATUS.get(kind, 200)
    assert retry_after == ("0.5" if kind == "429" else None)
    if kind in ("empty", "length"):
        choice, whole = answer["choices"][0], reply().text
        expected = ("", "stop") if kind == "empty" else (whole[: len(whole) // 2], "length")
        assert (choice["message"]["content"], choice["finish_reason"]) == expected


def test_a_client_with_retries_gets_the_answers_of_a_server_without_faults() -> None:
    async def ask(server: StandIn, session: aiohttp.ClientSession, url: str) -> tuple[list[str], Any]:
        retry_policy = RetryPolicy(timeout=1.0, initial_wait=0.01, max_wait=0.05)
        client = OpenAIClient(url, "m", retry_policy=retry_policy)
        requests = [Request(Conversation.of_user(f"hello {number}"), Sampling(seed=number)) for number in range(200)]
        try:
            answers = await asyncio.gather(*[client.complete(request) for request in requests])
            return [answer.text for answer in answers], server.stats()
        finally:
            await client.close()

    kinds = ("429", "500", "503", "reset", "hang", "malformed", "truncated", "utf8")
    faults = Faults(dict.fromkeys(kinds, 0.04))
    troubled, stats = served(ask, pace=AT_ONCE, faults=faults, retry_after=0.01)
    calm, quiet = served(ask, pace=AT_ONCE)
    assert troubled == calm
    assert set(stats["faults"]) == set(kinds) and stats["contents"] == quiet["contents"] == quiet["requests"] == 200
    assert stats["repeated"] >= sum(stats["faults"].values()) > 0


# --- what it counts, and how it comes and goes


def test_the_counts_tell_steps_repetitions_and_the_cache_apart() -> None:
    async def ask(server: StandIn, session: aiohttp.ClientSession, url: str) -> tuple[Any, Any]:
        shots = [{"role": "user", "content": "example " * 40}, {"role": "assistant", "content": "reply " * 40}]
        for number in (1, 2, 2):
            body = chat() | {"messages": [*shots, {"role": "user", "content": f"prompt {number}"}]}
            async with session.post(url, json=body) as response:
                answer = await response.json()
        turns = [{"role": "assistant", "content": answer["choices"][0]["message"]["content"]}]
        body["messages"] += [*turns, {"role": "user", "content": "more"}]
        async with session.post(url, json=body) as response:
            return server.stats(), (await response.json())["usage"]

    stats, usage = served(ask, pace=AT_ONCE)
    assert (stats["requests"], stats["contents"], stats["repeated"], stats["answered"]) == (4, 3, 1, 4)
    assert stats["by_messages"] == {"3": 3, "5": 1}
    assert 0 < usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] <= 16 + 5, (
        "all but the last turn"
    )


def test_what_is_no_chat_request_is_refused() -> None:
    async def ask(server: StandIn, session: aiohttp.ClientSession, url: str) -> list[int]:
        statuses: list[int] = []
        no_schema = chat(response_format={"type": "json_schema"})
        for body in (b"{", b"[]", b'{"model": "m"}', json.dumps(chat(stream=True)), json.dumps(no_schema)):
            async with session.post(url, data=body) as response:
                statuses.append(response.status)
        async with session.get(url) as response:
            return [*statuses, response.status]

    assert served(ask, pace=AT_ONCE) == [*[400] * 5, 404]


@pytest.mark.parametrize(("how", "seen"), [("503", "503"), ("closed", "nobody")])
def test_it_goes_away_and_comes_back_at_the_same_address(how: str, seen: str) -> None:
    async def state(session: aiohttp.ClientSession, url: str) -> str:
        await asyncio.sleep(0.01)
        try:
            async with session.post(url, json=chat()) as response:
                return str(response.status)
        except aiohttp.ClientError:
            return "nobody"

    async def ask(server: StandIn, session: aiohttp.ClientSession, url: str) -> set[str]:
        control = url.removesuffix("/v1/chat/completions")
        async with session.post(f"{control}/away", json={"seconds": 0.3, "how": how}) as response:
            assert response.status == 200
        states: set[str] = set()
        while "200" in (states or {"200"}):
            states = {await state(session, url)}
        while "200" not in states:
            states.add(await state(session, url))
        return states

    assert served(ask, pace=AT_ONCE) == {seen, "200"}


def test_as_a_process_it_serves_its_address_and_ends_with_the_block() -> None:
    with standin("--time-scale", "0", "--fault", "empty=1") as server:
        assert server.url.startswith(f"http://{HOST}:") and server.url.endswith("/v1")
        assert server.stats()["requests"] == 0
        process = server.process
        assert process.poll() is None
    assert process.poll() is not None


def test_as_a_process_it_ends_when_whoever_started_it_is_gone() -> None:
    with standin() as server:
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(10) == 0
