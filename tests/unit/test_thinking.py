# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A5: what a reasoning model thinks is neither trained on nor compared."""

import asyncio
import io
import logging
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.commands import chat
from nemo_aligner_cai.engine.engine import Engine, Outcome, Step
from nemo_aligner_cai.models import OpenAIClient, Request, RetryPolicy, Sampling
from nemo_aligner_cai.models.thinking import strip_reasoning
from nemo_aligner_cai.prompts import Prompt
from tests.unit.fake_servers import FakeOpenAI


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("No.", "No."),
        (" I think <thinking> is a tag.", " I think <thinking> is a tag."),
        ("<think>hm</think>\n\nNo.", "No."),
        ("hm\n</think>\n\nNo.", "No."),
        ("<think>a</think>b<think>c</think> No.", "No."),
        ("<THINK>hm</THINK>No.", "No."),
        ("[THINK]hm[/THINK]No.", "No."),
        ("\u25c1think\u25b7hm\u25c1/think\u25b7No.", "No."),
        ("<seed:think>hm</seed:think>No.", "No."),
        ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>No.<|END_RESPONSE|>", "No."),
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>No.", "No."),
        ("analysisThe user asks.assistantfinalNo.", "No."),
        ("analysis of this is hard", "analysis of this is hard"),
        ("Here is my thought process:\nhm\nHere is my response:\nNo.", "No."),
        ("<think>hm</think><answer>No.</answer>", "No."),
        ("<think>hm</think>", ""),
        ("<think>hm", None),
        ("\n<think>hm</think><think>again", None),
        ("<think>hm</think>Part one. <think>again", None),
        ("<think type='deep'>hm</think >No.", "No."),
        ("<longcat_think>hm</longcat_think>No.", "No."),
        ("<scratchpad>hm</scratchpad><output>No.</output>", "No."),
        ("<unused94>thought\nhm<unused95>No.", "No."),
        ("<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>No.<|end_of_solution|>", "No."),
        ("<|start|>assistant<|channel|>analysis<|message|>hm", None),
        ("a < b, [1], <b>No.</b>", "a < b, [1], <b>No.</b>"),
    ],
)
def test_a5_the_answer_stands_after_the_last_thought(text: str, answer: str | None) -> None:
    assert strip_reasoning(text) == answer


def run(reply: Any, *, room: int = 0) -> tuple[list[Outcome[Any]], Engine, FakeOpenAI]:
    """Two records through one step."""
    outcomes: list[Outcome[Any]] = []
    heard: list[str] = []

    def absorb(record: Prompt, completions: Any) -> Prompt:
        heard.append(completions[0].text)
        return record

    with FakeOpenAI(reply) as server:
        client = OpenAIClient(
            f"http://127.0.0.1:{server.port}", "m", retry_policy=RetryPolicy(attempts=2, initial_wait=0.01)
        )
        sampling = Sampling(greedy=True, max_tokens=8)
        step = Step("sample", client, lambda one: [Request(one.conversation, sampling, room=room)], absorb)
        engine = Engine(seed=1)

        async def go() -> None:
            await engine.run([Prompt(str(n), Conversation.of_user("q")) for n in range(2)], [step], outcomes.append)
            await client.close()

        asyncio.run(go())
    assert set(heard) <= {"No."}
    return outcomes, engine, server


@pytest.mark.parametrize("content", ["<think>hm</think>No.", "hm</think>\nNo."])
def test_a5_thoughts_are_cut_and_counted_and_told_of_once(content: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        outcomes, engine, _ = run(lambda body: content)
    assert all(one.skipped is None for one in outcomes) and engine.stats.with_reasoning == 2
    (told,) = (record.getMessage() for record in caplog.records)
    assert "--reasoning-parser" in told and "chat_template_kwargs" in told


HIDDEN: list[dict[str, Any]] = [{"content": ""}, {"content": None}, {}, {"content": "", "reasoning": None}]
"""Messages of servers that hide the reasoning, in replies that are cut before the answer."""


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "hm"},
        {"content": None, "reasoning": "hm"},
        {"content": "<think>hm"},
        *HIDDEN,
    ],
)
def test_a5_a_reply_cut_within_its_thoughts_drops_its_record_with_that_reason(message: dict[str, Any]) -> None:
    outcomes, engine, server = run(lambda body: {"message": message, "finish_reason": "length"})
    reasons = [one.skipped.reason for one in outcomes if one.skipped]
    assert len(reasons) == 2 and all("within its thoughts" in reason for reason in reasons)
    assert len(server.bodies) == 2, "it is not asked for again as an empty one is"
    assert engine.stats.with_reasoning == 2


@pytest.mark.parametrize(
    ("cut", "whole"),
    [({"content": "<think>hm"}, "<think>hm hm</think>No."), *((hidden, "No.") for hidden in HIDDEN)],
)
def test_a5_a_vote_has_room_for_thoughts_where_the_model_thinks(cut: dict[str, Any], whole: str) -> None:
    def reply(body: dict[str, Any]) -> Any:
        return {"message": cut, "finish_reason": "length"} if body["max_tokens"] < 500 else whole

    outcomes, _, server = run(reply, room=512)
    assert all(one.skipped is None for one in outcomes)
    assert [body["max_tokens"] for body in server.bodies].count(512) == 2


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


@pytest.mark.parametrize(
    ("parts", "dropped", "thoughts"),
    [
        ([{"type": "text", "text": "N"}, {"type": "text", "text": "o."}], None, 0),
        ([THINKING, {"type": "text", "text": "No."}], None, 2),
        ([THINKING], "the reply ends within its thoughts", 2),
        ([{"type": "text", "text": 5}], "malformed answer", 0),
        (["No."], "malformed answer", 0),
    ],
)
def test_a5_a_content_in_parts_is_read(parts: list[Any], dropped: str | None, thoughts: int) -> None:
    """Mistral's API sends thoughts so."""
    outcomes, engine, _ = run(lambda body: {"message": {"content": parts}, "finish_reason": "stop"})
    reasons = {one.skipped.reason if one.skipped else None for one in outcomes}
    assert reasons == {dropped and f"sample call failed: {dropped}"} and engine.stats.with_reasoning == thoughts


def test_a5_a_reply_with_its_thoughts_apart_is_untouched() -> None:
    message = {"content": "No.", "reasoning_content": "hm"}
    outcomes, engine, _ = run(lambda body: {"message": message, "finish_reason": "stop"})
    assert all(one.skipped is None for one in outcomes) and not engine.stats.with_reasoning


def test_a5_chat_shows_and_sends_back_answers_without_thoughts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = iter(["<think>hm</think>\n\nOne.", "<think>so long", "Three."])
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\nc\n"))
    monkeypatch.setattr("signal.signal", lambda *_: None)

    async def talk(server: FakeOpenAI) -> None:
        client = OpenAIClient(f"http://127.0.0.1:{server.port}", "m")
        try:
            await chat._talk(client, Sampling(greedy=True, max_tokens=7))  # pyright: ignore[reportPrivateUsage]
        finally:
            await client.close()

    with FakeOpenAI(lambda body: next(replies)) as server:
        asyncio.run(talk(server))
    said = capsys.readouterr()
    assert said.out.splitlines() == ["One.", "Three."] and "--max-tokens 7" in said.err
    assert [message["content"] for message in server.bodies[-1]["messages"]] == ["a", "One.", "c"]
