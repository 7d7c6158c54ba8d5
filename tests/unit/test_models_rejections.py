# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a server rejects: single prompts, or everything; and what is said of it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from nemo_aligner_cai.engine.engine import Engine, Outcome, Step
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import RowCounts
from nemo_aligner_cai.models import (
    ModelClient,
    ServerRefused,
)
from tests.unit.asking import ask, client_of
from tests.unit.fake_servers import FakeNemo, FakeOpenAI, FakeServer


def steps_of(client: ModelClient) -> Step[Any]:
    return Step("answer", client, lambda record: [ask(record.id)], lambda record, answers: record)


class Record:
    def __init__(self, name: str) -> None:
        self.id = name


def served(server: FakeServer, names: list[str], concurrency: int) -> list[tuple[str, str | None]]:
    """(record, why it was dropped) of a run."""
    outcomes: list[tuple[str, str | None]] = []

    def finished(outcome: Outcome[Any]) -> None:
        outcomes.append((outcome.record.id, outcome.skipped.reason if outcome.skipped else None))

    async def run() -> None:
        client = client_of(server, concurrency=concurrency)
        try:
            await Engine(seed=1).run([Record(name) for name in names], [steps_of(client)], finished)
        finally:
            await client.close()

    asyncio.run(run())
    return outcomes


def flag(status: int | str, word: str = "bad") -> Callable[[dict[str, Any]], int | str | None]:
    return lambda body: status if word in json.dumps(body) else None


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 302, 451])
@pytest.mark.parametrize("concurrency", [1, 16])
def test_b1_rejected_prompts_are_their_own_failure_wherever_they_stand(status: int, concurrency: int) -> None:
    names = [f"bad {n}" for n in range(12)] + [f"{'bad' if n % 7 == 0 else 'good'} {n}" for n in range(40)]
    with FakeOpenAI() as server:
        server.fault_of = flag(status)
        outcomes = served(server, names, concurrency)
    expected = [(name, f"answer call failed: HTTP {status}" if "bad" in name else None) for name in names]
    assert outcomes == expected


def test_b1_a_batch_with_a_rejected_sentence_is_halved() -> None:
    names = [f"{'bad' if n in (3, 17) else 'good'} {n}" for n in range(20)]
    with FakeNemo() as server:
        server.fault_of = flag(403)
        assert [name for name, why in served(server, names, 3) if why] == ["bad 3", "bad 17"]


@pytest.mark.parametrize("concurrency", [1, 16])
def test_b1_a_server_that_rejects_greetings_too_serves_what_it_has_served(concurrency: int) -> None:
    names = [f"{'bad' if n in (25, 30, 31) else 'good'} {n}" for n in range(40)]
    with FakeOpenAI() as server:
        server.fault_of = lambda body: (
            403 if {"bad", "Hello"} & set(json.dumps(body).replace('"', " ").split()) else None
        )
        assert [name for name, why in served(server, names, concurrency) if why] == ["bad 25", "bad 30", "bad 31"]
        greetings = len(server.headers) - len(server.bodies) - 3
    assert greetings <= 1


@pytest.mark.parametrize("concurrency", [1, 64])
@pytest.mark.parametrize("status", [401, 403, 404, 400, 422, 301])
def test_b1_a_server_that_rejects_all_ends_the_run_at_once(status: int, concurrency: int) -> None:
    with FakeOpenAI() as server:
        server.fault_of = lambda body: status
        with pytest.raises(ServerRefused, match=f"HTTP {status}"):
            served(server, [str(n) for n in range(1000)], concurrency)
    assert len(server.headers) <= 2 * concurrency + 4, "one more may be sent while the run stops"


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("status", [400, 403])
def test_b1_a_server_that_rejects_the_first_prompts_and_greetings_serves_others(status: int, concurrency: int) -> None:
    names = [f"{'bad' if n in (0, 1, 30) else 'good'} {n}" for n in range(40)]
    with FakeOpenAI() as server:
        server.fault_of = lambda body: (
            status if {"bad", "Hello"} & set(json.dumps(body).replace('"', " ").split()) else None
        )
        assert [name for name, why in served(server, names, concurrency) if why] == ["bad 0", "bad 1", "bad 30"]
    assert len(server.headers) <= len(names) + 4


@pytest.mark.parametrize("concurrency", [1, 16])
def test_b1_a_key_that_is_revoked_ends_the_run(concurrency: int) -> None:
    with FakeOpenAI() as server:
        server.fault_of = lambda body: 401 if len(server.headers) > 50 else None
        with pytest.raises(ServerRefused, match="HTTP 401"):
            served(server, [str(n) for n in range(1000)], concurrency)
    assert len(server.headers) <= 52 + 2 * concurrency, "one more may be sent while the run stops"


def test_b8_the_first_failure_is_logged_with_the_servers_words(caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI() as server:
        server.fault_of = flag(400)
        served(server, ["good", "bad 1", "bad 2"], 1)
    assert [("bad 1" in line, "told to" in line) for line in caplog.messages] == [(True, True)]


@pytest.mark.parametrize("written", [0, 3])
def test_b8_the_end_message_holds_the_servers_words(written: int) -> None:
    summary = Summary(RowCounts(rows_in=5, written=written), faults=5 - written, first_fault="HTTP 400: told to")
    with pytest.raises(CaiError, match="told to"):
        summary.check(0.01)
