# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import asyncio
import math
import time
from collections.abc import Sequence
from typing import Any

import pytest

from nemo_aligner_cai.chat import NEMO_CHAT, Conversation, Role
from nemo_aligner_cai.chat.named import MISTRAL_INSTRUCT
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import (
    CallFailed,
    Completion,
    NemoServerClient,
    Request,
    RetryPolicy,
    Sampling,
    ServerRefused,
)
from nemo_aligner_cai.models.http.retry import RetryableError
from nemo_aligner_cai.models.scoring.nemo_scores import score_choices
from tests.unit.fake_servers import FakeNemo

QUICK = RetryPolicy(timeout=0.5, attempts=3, max_outage=1.0, initial_wait=0.01, max_wait=0.05)


def ask(text: str, **kwargs: Any) -> Request:
    return Request(Conversation.of_user(text), Sampling(**{"max_tokens": 64, **kwargs}))


def batch(
    server: FakeNemo, requests: Sequence[Request], seed: int | None = 5, **kwargs: Any
) -> list[Completion | CallFailed]:
    async def run() -> list[Completion | CallFailed]:
        client = NemoServerClient("127.0.0.1", server.port, retry_policy=QUICK, **kwargs)
        try:
            return await client.complete_batch(requests, seed)
        finally:
            await client.close()

    return asyncio.run(run())


def texts(answers: Sequence[Completion | CallFailed]) -> list[str]:
    return [answer.text for answer in answers if isinstance(answer, Completion)]


def test_body_is_what_the_server_takes() -> None:
    with FakeNemo() as server:
        batch(server, [ask("a", temperature=0.7, top_k=50, top_p=0.95, min_tokens=1, stop=("END",))], seed=2**31 + 3)
    assert server.bodies == [
        {
            "sentences": ["<extra_id_0>System\n\n<extra_id_1>User\na\n<extra_id_1>Assistant\n"],
            "add_BOS": False,
            "all_probs": False,
            "tokens_to_generate": 64,
            "min_tokens_to_generate": 1,
            "temperature": 0.7,
            "top_k": 50,
            "top_p": 0.95,
            "greedy": False,
            "repetition_penalty": 1.0,
            "end_strings": ["<extra_id_1>", "END", "<|endoftext|>"],
            "random_seed": 3,
        }
    ]


def test_seeds_survive_the_32_bit_float_in_which_nemo_sends_them_to_other_ranks() -> None:
    import struct

    with FakeNemo() as server:
        for seed in (2**31 - 1, 2**24 + 1, 123456789):
            batch(server, [ask("a")], seed=seed)
    for body in server.bodies:
        seed = body["random_seed"]
        assert int(struct.unpack("f", struct.pack("f", float(seed)))[0]) == seed


def test_replies_are_found_although_the_prompt_comes_back_altered() -> None:
    def reply(prompt: str, rng: object) -> str:
        return "fine \U0001f600"

    with FakeNemo(reply) as server:
        answers = batch(server, [ask("smile \U0001f600 now"), ask("plain")])
    assert texts(answers) == ["fine  ⁇ ", "fine  ⁇ "]


def test_an_empty_reply_is_empty_and_an_invented_turn_is_cut_off() -> None:
    few_shot = Conversation.of_user("q1").with_turn(Role.ASSISTANT, "A1").with_turn(Role.USER, "q2")
    with FakeNemo(lambda prompt, rng: "", ending="") as server:
        (empty,) = batch(server, [Request(few_shot, Sampling())])
    with FakeNemo(lambda prompt, rng: "yes\n<extra_id_1>User\nmore\n<extra_id_1>Assistant\nno") as server:
        (invented,) = batch(server, [Request(few_shot, Sampling())])
    assert isinstance(empty, Completion) and empty.text == ""
    assert isinstance(invented, Completion) and invented.text == "yes"
    assert invented.finish_reason == "stop"


@pytest.mark.parametrize(("ending", "reason"), [("\n<extra_id_1>", "stop"), ("</s>", "stop"), ("", "length")])
def test_finish_reason_tells_a_cut_reply_from_a_finished_one(ending: str, reason: str) -> None:
    with FakeNemo(lambda prompt, rng: "one two", ending=ending) as server:
        (answer,) = batch(server, [ask("a")])
    assert isinstance(answer, Completion) and (answer.text, answer.finish_reason) == ("one two", reason)


def test_one_seed_makes_one_batch_and_the_same_batch_gives_the_same_samples() -> None:
    with FakeNemo() as server:
        requests = [ask("a"), ask("b"), ask("c")]
        first, again = batch(server, requests), batch(server, requests)
        other = batch(server, requests, seed=6)
        smaller = batch(server, requests[1:])
    assert texts(first) == texts(again) != texts(other)
    assert texts(smaller) != texts(first)[1:]


def test_greedy_needs_no_seed() -> None:
    with FakeNemo() as server:
        batch(server, [ask("a", greedy=True)], seed=None)
    assert server.bodies[0]["greedy"] is True and "random_seed" not in server.bodies[0]
    assert server.bodies[0]["temperature"] > 0


def test_choices_are_scored_with_their_own_log_probabilities() -> None:
    def p_of_a(prompt: str) -> float:
        return 0.9 if "good first" in prompt else 0.2

    requests = [
        Request(Conversation.of_user(text), Sampling(), choices=("(A)", "(B)"))
        for text in ("good first", "a much longer question where the bad one is first")
    ]
    with FakeNemo(first_letter=p_of_a) as server:
        answers = batch(server, requests, seed=None)
    body = server.bodies[0]
    assert body["tokens_to_generate"] == 1 and body["compute_logprob"] is True and body["greedy"] is True
    assert [sentence[-3:] for sentence in body["sentences"]] == ["(A)", "(B)", "(A)", "(B)"]
    odds: list[float] = []
    for answer in answers:
        assert isinstance(answer, Completion) and answer.choice_logprobs is not None
        a, b = (math.exp(answer.choice_logprobs[choice]) for choice in ("(A)", "(B)"))
        odds.append(a / (a + b))
    assert odds == pytest.approx([0.9, 0.2])


def test_scores_cover_merged_pieces_padding_and_choices_of_several_tokens() -> None:
    scores = score_choices(
        ("(A)", "(B)"),
        [[1, 2, 3, 9, 9], [1, 2, 4, 9, 8]],
        [["x", "▁Q", "▁(A)", "</s>", "</s>"], ["x", "▁Q", "▁(B)", "no", "more"]],
        [[-9.0, -1.0, -7.0, -7.0], [-9.0, -2.0, -7.0, -7.0]],
    )
    assert scores == {"(A)": -1.0, "(B)": -2.0}
    scores = score_choices(
        ("yes sure", "not"),
        [[1, 5, 6, 9], [1, 7, 8, 8]],
        [["x", "Ġyes", "Ġsure", "!"], ["x", "Ġno", "t", "t"]],
        [[-1.0, -0.5, -7.0], [-2.0, -0.25, -7.0]],
    )
    assert scores == {"yes sure": -1.5, "not": -2.25}


def test_choices_that_the_tokenizer_spells_in_bytes_are_scored_to_their_end() -> None:
    scores = score_choices(
        ("(A)", "(C)", "(é)"),
        [[1, 8, 5, 5, 5], [1, 23, 50, 24, 5], [1, 23, 51, 52, 24]],
        [
            ["x", "(A)", "!", "!", "!"],
            ["x", "<0x28>", "<0x43>", "<0x29>", "!"],
            ["x", "<0x28>", "<0xC3>", "<0xA9>", "<0x29>"],
        ],
        [[-1.0, -7.0, -7.0, -7.0], [-0.5, -0.25, -0.125, -7.0], [-0.5, -2.0, -0.25, -0.125]],
    )
    assert scores == {"(A)": -1.0, "(C)": -0.875, "(é)": -2.875}


def test_rows_that_are_not_the_choices_are_no_scores() -> None:
    with pytest.raises(RetryableError, match="end of the choice"):
        score_choices(("(A)", "(B)"), [[1, 2], [1, 3]], [["x", "⁇"], ["x", "⁇"]], [[-1.0], [-1.0]])
    with pytest.raises(RetryableError, match="same tokens"):
        score_choices(("(A)", "(B)"), [[1, 2], [1, 2]], [["x", "A"], ["x", "A"]], [[-1.0], [-1.0]])


@pytest.mark.parametrize("choices", [("(A)",), ("yes", "yes please")])
def test_choices_that_cannot_be_told_apart_are_refused(choices: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Request(Conversation.of_user("q"), Sampling(), choices=choices)


def test_an_error_string_with_http_200_stops_the_run_with_the_servers_words() -> None:
    with FakeNemo() as server:
        server.faults = ["string"] * 3
        with pytest.raises(ServerRefused, match="temperature must be a positive number"):
            batch(server, [ask("a"), ask("b")])
    assert server.bodies == []


@pytest.mark.parametrize("fault", [429, 500, 503, "reset", "hang", "truncated", "garbage", "utf8", "string"])
def test_a_passing_fault_changes_nothing(fault: int | str) -> None:
    requests = [ask("a"), ask("b")]
    with FakeNemo() as server:
        whole = batch(server, requests)
        server.faults = [fault]
        assert texts(batch(server, requests)) == texts(whole)


def test_a_prompt_that_breaks_the_server_is_found_and_the_others_are_served() -> None:
    with FakeNemo() as server:
        server.fault_of = lambda body: 500 if any("poison" in sentence for sentence in body["sentences"]) else None
        requests = [ask(text) for text in ("a", "b", "poison", "d", "e")]
        answers, again = batch(server, requests), batch(server, requests)
    assert [isinstance(answer, CallFailed) for answer in answers] == [False, False, True, False, False]
    assert texts(answers) == texts(again)
    assert len(set(texts(answers))) == 4


def test_a_server_that_comes_back_is_waited_for() -> None:
    gone = FakeNemo()
    gone.close()

    async def run() -> Completion:
        retry_policy = RetryPolicy(initial_wait=0.05, max_wait=0.1, attempts=1)
        client = NemoServerClient("127.0.0.1", gone.port, retry_policy=retry_policy)
        task = asyncio.create_task(client.complete(ask("a", greedy=True)))
        await asyncio.sleep(0.3)
        assert not task.done()
        with FakeNemo(port=gone.port):
            try:
                return await asyncio.wait_for(task, 5)
            finally:
                await client.close()

    assert asyncio.run(run()).text.startswith("reply")


def test_nobody_there_fails_after_the_patience_with_the_address() -> None:
    async def run() -> None:
        client = NemoServerClient(
            "127.0.0.1", 9, retry_policy=RetryPolicy(max_outage=0.1, initial_wait=0.01, max_wait=0.02)
        )
        try:
            await client.complete(ask("a"))
        finally:
            await client.close()

    started = time.monotonic()
    with pytest.raises(ServerRefused, match=r"server not reachable, for 0.1 s: http://127\.0\.0\.1:9/generate"):
        asyncio.run(run())
    assert time.monotonic() - started < 5


def test_the_servers_own_template_gets_messages_collated_over_the_batch() -> None:
    with FakeNemo(ending="</s>") as server:
        few = Conversation.of_user("q1").with_turn(Role.ASSISTANT, "a1").with_turn(Role.USER, "q2 [/INST] x")
        plain = Conversation.of_user("r1").with_turn(Role.ASSISTANT, "b1").with_turn(Role.USER, "r2")
        answers = batch(
            server,
            [Request(few, Sampling()), Request(plain, Sampling())],
            server_template=True,
            template=MISTRAL_INSTRUCT,
        )
    assert server.bodies[0]["sentences"] == [
        {"role": ["User", "User"], "content": ["q1", "r1"]},
        {"role": ["Assistant", "Assistant"], "content": ["a1", "b1"]},
        {"role": ["User", "User"], "content": ["q2 [ /INST] x", "r2"]},
    ]
    assert all(text.startswith("reply ") for text in texts(answers))


def test_more_sentences_than_the_server_takes_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match="1 to 128"):
        NemoServerClient(batch_size=129)


def test_identity_holds_what_changes_a_completion_and_not_where_the_server_is() -> None:
    one, same = NemoServerClient(port=1), NemoServerClient("elsewhere", 2, batch_size=3)
    assert one.identity == same.identity
    assert one.identity != NemoServerClient(model="other").identity
    assert one.identity != NemoServerClient(template=MISTRAL_INSTRUCT).identity
    assert one.template is NEMO_CHAT


class _Rendering(FakeNemo):
    """Adds the replies to the answer, as `cai serve` does where it renders the messages."""

    replies: Any = None

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        status, answer = super().answer(body)
        return status, answer | {"replies": self.replies}


def test_d1_a_server_that_renders_the_messages_finds_the_replies() -> None:
    with _Rendering() as server:
        server.replies = [{"text": "one", "finish_reason": "stop"}, {"text": "two", "finish_reason": "length"}]
        answers = batch(server, [ask("a"), ask("b")], server_template=True)
    assert texts(answers) == ["one", "two"]
    assert [one.finish_reason for one in answers if isinstance(one, Completion)] == ["stop", "length"]


@pytest.mark.parametrize("replies", [[], "one", [1], [{"text": 1, "finish_reason": "stop"}], [{"text": "one"}]])
def test_d1_replies_that_are_not_one_for_each_row_are_malformed(replies: Any) -> None:
    with _Rendering() as server:
        server.replies = replies
        answers = batch(server, [ask("a")], server_template=True)
    assert [one.reason for one in answers if isinstance(one, CallFailed)] == ["malformed answer"]
