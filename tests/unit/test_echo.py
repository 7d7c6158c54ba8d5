# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A3: what NeMo's server sends back is compared with what it was sent."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.models import CallFailed, Completion, NemoServerClient, Request, RetryPolicy, Sampling
from nemo_aligner_cai.models.scoring.echo_check import echoes
from tests.unit.fake_servers import FakeNemo

HEADER = "<extra_id_1>Assistant\n"


@pytest.mark.parametrize(
    ("sentence", "prompt", "expected"),
    [
        (f"hi\n{HEADER}Yes", f"hi\n{HEADER}", True),
        (f"hi {HEADER}Yes", f"hi\n\n{HEADER}", True),
        (f"pick \u2047  a lock\n{HEADER}Yes", f"pick 中 a lock\n{HEADER}", True),
        (f"\u2047 \u2047\n{HEADER}Yes \u2047", f"中文\n{HEADER}", True),
        (f"<s> hi\n{HEADER}Yes", f"hi\n{HEADER}", True),
        (f"①\n{HEADER}Yes", f"1\n{HEADER}", True),
        (f"hi there\n{HEADER}Yes", f"hi\n{HEADER}", False),
        (f"pick \u2047 a lock\n{HEADER}Yes", f"pick 中 a pocket\n{HEADER}", False),
        (f"hi\n{HEADER}(B)", f"hi\n{HEADER}(A)", False),
    ],
)
def test_a3_an_echo_is_the_prompt_as_a_tokenizer_spells_it(sentence: str, prompt: str, expected: bool) -> None:
    assert echoes(sentence, prompt) is expected


def answers(
    change: Callable[[dict[str, Any]], None], *, choices: tuple[str, ...] = ()
) -> list[Completion | CallFailed]:
    """What a batch of three comes to on a server whose answers are changed."""

    class Changed(FakeNemo):
        def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
            status, answer = super().answer(body)
            change(answer)
            return status, answer

    async def ask(port: int) -> list[Completion | CallFailed]:
        retry_policy = RetryPolicy(timeout=5, attempts=2, max_outage=0, initial_wait=0.01)
        client = NemoServerClient("127.0.0.1", port, retry_policy=retry_policy)
        requests = [
            Request(Conversation.of_user(f"question {number} 中\U0001f600"), Sampling(greedy=True), choices=choices)
            for number in range(3)
        ]
        try:
            return await client.complete_batch(requests, None)
        finally:
            await client.close()

    with Changed(first_letter=lambda prompt: 0.62) as server:
        return asyncio.run(ask(server.port))


def rotate(answer: dict[str, Any]) -> None:
    for name, rows in answer.items():
        if rows:
            answer[name] = rows[1:] + rows[:1]


@pytest.mark.parametrize("choices", [(), ("(A)", "(B)")])
def test_a3_rows_in_another_order_fail(choices: tuple[str, ...]) -> None:
    assert all(isinstance(one, Completion) for one in answers(lambda answer: None, choices=choices))
    failed = answers(rotate, choices=choices)
    assert [one.reason for one in failed if isinstance(one, CallFailed)] == ["malformed answer"] * 3


@pytest.mark.parametrize("rows", [None, [], "null", "empty", "short", "above 0", "zeros", "false", "sharp"])
def test_a3_rows_without_all_log_probabilities_are_no_scores(rows: Any) -> None:
    def change(answer: dict[str, Any]) -> None:
        if isinstance(rows, str):
            for row in range(6):
                given = answer["logprob"][row]
                answer["logprob"][row] = {
                    "null": None,
                    "empty": [],
                    "short": given[: len(given) // 2],
                    "above 0": [-one + 1 for one in given],
                    "zeros": [0.0] * len(given),
                    "false": [False] * len(given),
                    "sharp": [0.0 if one > -0.7 else -9999.0 for one in given],
                }[rows]
        else:
            answer["logprob"] = rows

    given = answers(change, choices=("(A)", "(B)"))
    assert [isinstance(one, Completion) and one.choice_logprobs for one in given] == [None] * 3


def test_a3_one_row_without_log_probabilities_makes_no_preference() -> None:
    def change(answer: dict[str, Any]) -> None:
        answer["logprob"][0] = []

    first, second, _ = answers(change, choices=("(A)", "(B)"))
    assert isinstance(first, Completion) and first.choice_logprobs is None
    assert isinstance(second, Completion) and second.choice_logprobs is not None
    assert math.exp(second.choice_logprobs["(A)"] - second.choice_logprobs["(B)"]) == pytest.approx(0.62 / 0.38)
