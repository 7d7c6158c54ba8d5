# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
import asyncio
import math
import time
from typing import Any

import pytest

from nemo_aligner_cai.conversation import Conversation, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import (
    CallFailed,
    Completion,
    OpenAIClient,
    Patience,
    Request,
    Sampling,
    ServerRefused,
    key_from_environment,
)
from nemo_aligner_cai.models import quota as quota_module
from nemo_aligner_cai.models.openai import chat_url, choice_logprobs
from nemo_aligner_cai.models.quota import Quota
from tests.unit.fake_servers import FakeOpenAI

QUICK = Patience(timeout=0.5, attempts=3, outage=2.0, first_wait=0.01, longest_wait=0.05)
SECRET = "nvapi-very-secret"


def complete(server: FakeOpenAI, request: Request, **kwargs: Any) -> Completion:
    async def run() -> Completion:
        client = OpenAIClient(f"http://127.0.0.1:{server.port}", "m", patience=QUICK, **kwargs)
        try:
            return await client.complete(request)
        finally:
            await client.close()

    return asyncio.run(run())


def ask(text: str = "q", **kwargs: Any) -> Request:
    return Request(Conversation.of_user(text), Sampling(**kwargs))


def test_request_and_completion() -> None:
    with FakeOpenAI(lambda body: {"message": {"content": "Grüß Gott 中文"}, "finish_reason": "length"}) as server:
        answer = complete(server, ask(temperature=0.5, top_p=0.9, seed=7, max_tokens=5), key=SECRET)
    assert server.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "q"}],
            "max_tokens": 5,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 7,
        }
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert (answer.text, answer.finish_reason) == ("Grüß Gott 中文", "length")
    assert answer.usage is not None and answer.usage.completion_tokens == 3


def test_a_missing_text_is_empty_and_never_the_word_none() -> None:
    with FakeOpenAI(lambda body: {"message": {"content": None}, "finish_reason": "stop"}) as server:
        assert complete(server, ask()).text == ""


@pytest.mark.parametrize("fault", [408, 409, 425, 429, 500, 502, 503, "reset", "hang", "truncated", "garbage", "utf8"])
def test_a_passing_fault_is_retried(fault: int | str) -> None:
    with FakeOpenAI() as server:
        server.faults = [fault]
        assert complete(server, ask()).text == "hello"


def test_lone_surrogates_are_not_taken_for_text() -> None:
    said = iter(["bad \ud800", "good"])
    with FakeOpenAI(lambda body: next(said)) as server:
        assert complete(server, ask()).text == "good"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_that_holds_for_all_stops_the_run_without_naming_the_key(status: int) -> None:
    with FakeOpenAI() as server:
        server.fault_of = lambda body: status
        with pytest.raises(ServerRefused, match=f"HTTP {status}") as caught:
            complete(server, ask(), key=SECRET)
    assert SECRET not in str(caught.value)


def test_a_refusal_of_one_request_is_that_requests_failure() -> None:
    with FakeOpenAI() as server:
        server.fault_of = lambda body: 400
        with pytest.raises(CallFailed, match="HTTP 400"):
            complete(server, ask())


def test_attempts_come_to_an_end() -> None:
    with FakeOpenAI() as server:
        server.fault_of = lambda body: 500
        with pytest.raises(CallFailed, match="HTTP 500"):
            complete(server, ask())
    assert len(server.headers) == QUICK.attempts


def test_an_outage_does_not_use_up_the_attempts() -> None:
    with FakeOpenAI() as server:
        server.faults = [503, 500, 503, 429, 500, 502]
        assert complete(server, ask()).text == "hello"


def test_a_dead_endpoint_is_left_alone_and_the_other_serves() -> None:
    gone = FakeOpenAI()
    gone.close()

    async def run(live: int) -> None:
        urls = [f"http://127.0.0.1:{port}/v1" for port in (gone.port, live)]
        client = OpenAIClient(urls, "m", patience=QUICK, concurrency=4)
        answers = await asyncio.gather(*(client.complete(ask(str(number))) for number in range(20)))
        await client.close()
        assert [answer.text for answer in answers] == ["hello"] * 20
        assert client.stats.retries <= 4

    with FakeOpenAI() as server:
        asyncio.run(run(server.port))
        assert len(server.bodies) == 20


def test_an_endpoint_that_refuses_at_once_does_not_look_like_the_least_busy_one() -> None:
    async def run(ports: list[int]) -> None:
        client = OpenAIClient([f"http://127.0.0.1:{port}" for port in ports], "m", patience=QUICK, concurrency=4)
        answers = await asyncio.gather(*(client.complete(ask(str(number))) for number in range(40)))
        await client.close()
        assert [answer.text for answer in answers] == ["hello"] * 40 and client.stats.retries <= 4

    with FakeOpenAI() as ill, FakeOpenAI() as well:
        ill.fault_of = lambda body: 503
        asyncio.run(run([ill.port, well.port]))


def test_a_chain_stays_with_the_endpoint_that_has_its_beginning_in_the_cache() -> None:
    async def run(ports: list[int]) -> None:
        client = OpenAIClient([f"http://127.0.0.1:{port}" for port in ports], "m", concurrency=32)
        for number in range(20):
            chain = Conversation.of_user(f"prompt {number}")
            for _ in range(3):
                await client.complete(Request(chain, Sampling()))
                chain = chain.with_turn(Role.ASSISTANT, "a").with_turn(Role.USER, "u")
        await client.close()

    with FakeOpenAI() as one, FakeOpenAI() as other:
        asyncio.run(run([one.port, other.port]))
        asked = [{body["messages"][0]["content"] for body in server.bodies} for server in (one, other)]
    assert asked[0].isdisjoint(asked[1]) and min(map(len, asked)) > 0


@pytest.mark.parametrize(("empty", "text", "retries"), [(1, "hello", 1), (2, "hello", 2), (3, "", 2)])
def test_an_empty_reply_is_asked_for_again_and_then_believed(empty: int, text: str, retries: int) -> None:
    said = [" \n"] * empty
    with FakeOpenAI(lambda body: said.pop() if said else "hello") as server:
        assert complete(server, ask()).text.strip() == text
        assert len(server.bodies) == 1 + retries


def test_no_more_requests_are_on_their_way_than_asked_for() -> None:
    async def run(port: int) -> None:
        client = OpenAIClient(f"http://127.0.0.1:{port}", "m", concurrency=3)
        await asyncio.gather(*(client.complete(ask(str(number))) for number in range(30)))
        await client.close()

    def slow(body: Any) -> str:
        time.sleep(0.005)
        return "x"

    with FakeOpenAI(slow) as server:
        asyncio.run(run(server.port))
        assert server.most_busy == 3


def test_a_quota_per_minute_is_kept() -> None:
    async def run(port: int) -> float:
        client = OpenAIClient(f"http://127.0.0.1:{port}", "m", requests_per_minute=600)
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(client.complete(ask(str(number))) for number in range(6)))
        await client.close()
        return asyncio.get_running_loop().time() - started

    with FakeOpenAI() as server:
        assert asyncio.run(run(server.port)) >= 0.45


def test_a_quota_of_tokens_counts_the_prompt_and_what_replies_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_module, "_SECONDS", 0.5)

    async def run() -> list[float]:
        # 500 tokens may be spent at once, and 1,000 a second after that.
        quota, started = Quota(tokens_per_minute=60_000), time.monotonic()
        quota.wrote(90)
        seconds: list[float] = []
        for read in (410, 110, 1010):
            await quota.take(b"x" * 3 * read)
            seconds.append(time.monotonic() - started)
        return seconds

    seconds = asyncio.run(run())
    assert seconds[1] >= 0.19, "110 read and 90 expected"
    assert seconds[2] - seconds[1] >= 1.0, "more than can be spent at once is waited for in parts"


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/", "http://h:1/v1/chat/completions"),
        ("https://h/api/v2/chat/completions", "https://h/api/v2/chat/completions"),
    ],
)
def test_addresses(given: str, endpoint: str) -> None:
    assert chat_url(given) == endpoint


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="not the address"):
        chat_url("localhost:8000")


def test_key_comes_from_the_first_variable_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAI_TEST_A", raising=False)
    monkeypatch.setenv("CAI_TEST_B", " k ")
    assert key_from_environment("CAI_TEST_A", "CAI_TEST_B") == "k"
    assert key_from_environment("CAI_TEST_A") is None


def tokens(*steps: tuple[str, dict[str, float]]) -> dict[str, Any]:
    """The logprobs field of a reply whose tokens had these alternatives (probabilities)."""
    return {
        "content": [
            {
                "token": token,
                "logprob": math.log(alternatives[token]),
                "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in alternatives.items()],
            }
            for token, alternatives in steps
        ]
    }


@pytest.mark.parametrize(
    "given",
    [
        tokens(("(", {"(": 0.9, " ": 0.1}), ("A", {"A": 0.6, "B": 0.2, "C": 0.1}), (")", {")": 1.0})),
        tokens(("(A", {"(A": 0.6, "(B": 0.2}), (")", {")": 1.0})),
        tokens((" (A", {" (A": 0.5, "(A": 0.1, " (B": 0.2})),
    ],
)
def test_choices_are_scored_where_they_part(given: dict[str, Any]) -> None:
    scores = choice_logprobs(given, ("(A)", "(B)"))
    assert scores is not None
    assert math.exp(scores["(A)"]) == pytest.approx(0.6) and math.exp(scores["(B)"]) == pytest.approx(0.2)


def test_a_choice_beyond_the_alternatives_gets_the_most_it_can_have() -> None:
    scores = choice_logprobs(tokens(("(A", {"(A": 0.9, "x": 0.01})), ("(A)", "(B)"))
    assert scores is not None and math.exp(scores["(B)"]) == pytest.approx(0.01)


@pytest.mark.parametrize(
    "given", [None, {}, {"content": None}, tokens(("I", {"I": 0.9, "We": 0.1}), ("(A", {"(A": 0.9, "(B": 0.1}))]
)
def test_no_scores_are_made_up(given: Any) -> None:
    assert choice_logprobs(given, ("(A)", "(B)")) is None


def test_scoring_asks_for_alternatives() -> None:
    given = tokens(("(A", {"(A": 0.75, "(B": 0.25}))
    reply = {"message": {"content": "(A)"}, "finish_reason": "length", "logprobs": given}
    with FakeOpenAI(lambda body: reply) as server:
        answer = complete(server, Request(Conversation.of_user("q"), Sampling(), choices=("(A)", "(B)")))
    assert server.bodies[0]["logprobs"] is True and server.bodies[0]["top_logprobs"] == 20
    assert answer.finish_reason == "choices" and answer.choice_logprobs is not None
    assert math.exp(answer.choice_logprobs["(A)"]) == pytest.approx(0.75)
