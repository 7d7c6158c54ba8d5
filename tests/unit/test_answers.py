# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The step that asks a run's models a few prompts."""

import asyncio
from pathlib import Path

import pytest

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.models import CallFailed, ScriptedClient
from nemo_aligner_cai.models.base import Request, Sampling
from nemo_aligner_cai.pipeline.sections.answers import Answers
from nemo_aligner_cai.pipeline.steps.answers import ask_all

SECTION = Answers(prompts=("b ?", "a ?"), system_message="Be brief.", decoding=Sampling(temperature=0.5, max_tokens=8))


def reply(request: Request) -> str:
    system, user = request.conversation.messages
    return f"{system.content} {user.content} {request.sampling.temperature} {request.sampling.max_tokens}"


def test_answers_are_in_the_order_of_the_prompts_and_kept_in_the_journal(tmp_path: Path) -> None:
    client, journal = ScriptedClient(reply), tmp_path / "rl_cai.journal.jsonl"
    rows = asyncio.run(ask_all(client, SECTION, journal, seed=1))
    assert [row["prompt"] for row in rows] == ["b ?", "a ?"]
    assert rows[0] == {"prompt": "b ?", "answer": "Be brief. b ? 0.5 8", "finish_reason": "stop"}
    again = ScriptedClient(lambda request: "asked again")
    assert asyncio.run(ask_all(again, SECTION, journal, seed=1)) == rows


def test_a_prompt_without_an_answer_is_an_error(tmp_path: Path) -> None:
    def fail(request: Request) -> str:
        raise CallFailed("content filter")

    with pytest.raises(CaiError, match=r"2 of 2 .*content filter"):
        asyncio.run(ask_all(ScriptedClient(fail), SECTION, tmp_path / "x.journal.jsonl", seed=1))
