# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Keys that are added to request bodies, omitted or renamed for a service."""

from dataclasses import replace
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import (
    BodyChanges,
    OpenAIClient,
    Request,
    Sampling,
    ServerRefused,
)
from tests.unit.asking import ask, complete
from tests.unit.fake_servers import FakeOpenAI


def test_d13_keys_are_omitted_renamed_and_added() -> None:
    changes = BodyChanges({"top_logprobs": 5, "chat_template_kwargs": {"x": 1}}, {"seed": None, "max_tokens": "m_c_t"})
    with FakeOpenAI() as server:
        complete(server, ask(), changes=changes)
        complete(server, replace(ask(), choices=("A", "B")), changes=changes)
    free = server.bodies[0]
    scored = next(body for body in server.bodies if "top_logprobs" in body)
    assert "seed" not in free and "top_logprobs" not in free and free["m_c_t"] == 1024
    assert free["chat_template_kwargs"] == {"x": 1} and scored["top_logprobs"] == 5 and "m_c_t" in scored


@pytest.mark.parametrize(
    ("extra", "omitted"),
    [({"messages": []}, {}), ({"stream": True}, {}), ({}, {"model": None}), ({}, {"sed": None}), ({}, {"seed": "n"})],
)
def test_d13_keys_that_cannot_be_changed(extra: dict[str, Any], omitted: dict[str, str | None]) -> None:
    with pytest.raises(UsageError):
        BodyChanges(extra, omitted)


def test_d13_journal_keys_change_with_the_body_alone() -> None:
    plain = OpenAIClient("http://127.0.0.1:1", "m").identity
    assert OpenAIClient("http://127.0.0.1:1", "m", changes=BodyChanges()).identity == plain
    assert OpenAIClient("http://127.0.0.1:1", "m", changes=BodyChanges({}, {"seed": None})).identity != plain


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("Unknown parameter: 'repetition_penalty'", "--omit repetition_penalty"),
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            "--omit max_tokens=max_completion_tokens",
        ),
    ],
)
def test_d13_an_unknown_key_names_the_flag(words: str, advice: str) -> None:
    class Strict(FakeOpenAI):
        def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
            return 400, {"error": {"message": words}}

    request = Request(Conversation.of_user("q"), Sampling(repetition_penalty=1.2))
    with Strict() as server, pytest.raises(ServerRefused, match=advice):
        complete(server, request)


def test_a_secret_in_a_changed_body_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match=r"headers\.Authorization") as refused:
        BodyChanges({"headers": {"Authorization": "Bearer hunter22"}})
    assert "hunter22" not in str(refused.value)
