# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Pools of servers: choosing, homes, limits of each server, and a folder that changes during a run."""

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.models import OpenAIClient, Request, RetryPolicy, Sampling, ServerRefused
from nemo_aligner_cai.models.http import adaptive_limit, endpoint_folder, transport
from nemo_aligner_cai.models.http.endpoint_pool import Endpoint, EndpointPool
from nemo_aligner_cai.models.http.home_table import HomeTable
from nemo_aligner_cai.pipeline.sections.models import EndpointModel
from nemo_aligner_cai.pipeline.serving.clients import endpoint_client
from tests.unit.fake_servers import FakeOpenAI

QUICK = RetryPolicy(timeout=5.0, attempts=4, max_outage=2.0, initial_wait=0.01, max_wait=0.05)
KEYS = range(8000)


def ask(text: str) -> Request:
    return Request(Conversation.of_user(text), Sampling(max_tokens=8))


def pool_of(count: int, **limits: Any) -> EndpointPool:
    return EndpointPool([f"http://10.0.{number // 256}.{number % 256}/v1" for number in range(count)], **limits)


def test_a_server_that_joins_or_leaves_changes_only_its_own_homes() -> None:
    table = HomeTable()
    for number in range(20):
        table.add(f"http://node{number}")
    before = [table.home(key) for key in KEYS]
    assert min(Counter(before).values()) > len(KEYS) / 20 * 0.7, "the homes are spread evenly"
    table.add("http://node20")
    joined = [table.home(key) for key in KEYS]
    moved = [new for old, new in zip(before, joined, strict=True) if old != new]
    assert set(moved) == {"http://node20"} and len(moved) < 1.5 * len(KEYS) / 21
    table.remove("http://node20")
    assert [table.home(key) for key in KEYS] == before
    table.remove("http://node7")
    left = [table.home(key) for key in KEYS]
    assert {old for old, new in zip(before, left, strict=True) if old != new} == {"http://node7"}


def test_homes_do_not_depend_on_the_order_of_arrival() -> None:
    one, other = HomeTable(), HomeTable()
    for number in range(20):
        one.add(f"http://node{number}")
        other.add(f"http://node{19 - number}")
        # Homes that exist already are compared with those who join.
        other.home(number)
    assert [one.home(key) for key in KEYS] == [other.home(key) for key in KEYS]


def operations(work: Callable[[], object]) -> int:
    """The bytecode instructions that a function executes, which do not depend on the machine."""
    executed = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal executed
        frame.f_trace_opcodes = True
        executed += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
    return executed


def test_the_work_of_choosing_does_not_depend_on_the_number_of_servers() -> None:
    def work_with(count: int) -> int:
        pool = pool_of(count, per_endpoint=4)
        for key in KEYS:
            pool.choose(key)

        def choose_all() -> None:
            for key in range(1000):
                endpoint = pool.choose(key)
                assert endpoint is not None
                pool.begin(endpoint)
                pool.end(endpoint)

        return operations(choose_all)

    assert work_with(1000) < 1.5 * work_with(4)


def test_the_least_busy_server_is_chosen_unless_the_home_is_about_as_busy() -> None:
    pool = pool_of(5, per_endpoint=16)
    home = pool.choose(1)
    assert home is not None
    for _ in range(2):
        assert pool.choose(1) is home
        pool.begin(home)
    pool.begin(home)
    other = pool.choose(1)
    assert other is not None and other is not home and other.in_flight == 0, (
        "the home has 3, 1/8 of 16 more are allowed"
    )


def fill(pool: EndpointPool) -> list[Endpoint]:
    """Send as many requests as the semaphore admits."""
    sent: list[Endpoint] = []
    for key in range(pool.semaphore.limit):
        endpoint = pool.choose(key)
        assert endpoint is not None
        pool.begin(endpoint)
        sent.append(endpoint)
    return sent


def test_an_overloaded_server_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive_limit.time, "monotonic", lambda: 0.0)
    pool = pool_of(10, per_endpoint=8)
    assert Counter(fill(pool)).most_common()[0][1] <= 9 and pool.semaphore.limit == pool.concurrency == 80
    ill = pool.choose(0)
    assert ill is not None
    load = ill.in_flight
    pool.record_overload(ill)
    assert ill.limit.value == load // 2 and pool.semaphore.limit == 72 + load // 2
    assert pool.choose(0) is not ill
    for _ in range(200):
        pool.record_success(ill)
    assert pool.semaphore.limit == 80


def test_the_total_of_given_addresses_stays_what_it_was() -> None:
    pool = pool_of(4, per_endpoint=64, total=64)
    assert pool.semaphore.limit == pool.concurrency == 64


def test_servers_that_have_failed_are_chosen_last_and_the_first_to_be_tried_again_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [100.0]
    monkeypatch.setattr("nemo_aligner_cai.models.http.endpoint_pool.time.monotonic", lambda: clock[0])
    pool = pool_of(3, per_endpoint=4)
    first, second, third = (pool.choose(key) for key in (keys_of_homes(pool)))
    assert first is not None and second is not None and third is not None
    pool.mark_failed(first)
    pool.mark_failed(second)
    assert {pool.choose(key) for key in KEYS} == {third}
    clock[0] += 0.5
    pool.mark_failed(third)
    assert not pool.has_available and pool.choose(0) is first
    clock[0] += 0.6
    assert {pool.choose(key) for key in KEYS} == {first, second}
    pool.remove(first.address)
    pool.remove(second.address)
    assert pool.choose(0) is third
    pool.mark_healthy(third)
    assert pool.has_available


def keys_of_homes(pool: EndpointPool) -> list[int]:
    """One affinity value for each server."""
    found: dict[Endpoint | None, int] = {}
    for key in KEYS:
        found.setdefault(pool.choose(key), key)
    return list(found.values())


class Folder:
    """The folder of a pool, which is read many times a second."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        monkeypatch.setattr(endpoint_folder, "READ_INTERVAL", 0.02)

    def write(self, name: str, server: FakeOpenAI) -> None:
        (self.path / f"{name}.tmp").write_text(f"http://127.0.0.1:{server.port}\n")
        (self.path / f"{name}.tmp").rename(self.path / name)

    def client(self, **settings: Any) -> OpenAIClient:
        return OpenAIClient(self.path, "m", **{"retry_policy": QUICK, "concurrency": 4, **settings})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def run_with(client: OpenAIClient, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        try:
            await work()
        finally:
            await client.close()

    asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(250):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen within 5 s")


def test_servers_join_leave_and_return_during_a_run(folder: Folder) -> None:
    with FakeOpenAI() as one, FakeOpenAI() as other:
        folder.write("1", one)
        client = folder.client()
        assert client.concurrency == 4

        async def work() -> None:
            await client.complete(ask("a"))
            assert len(one.bodies) == 1
            folder.write("2", other)
            await until(lambda: client.concurrency == 8)
            (folder.path / "1").unlink()
            await until(lambda: client.concurrency == 4)
            await client.complete(ask("b"))
            await client.complete(ask("c"))
            assert len(one.bodies) == 1 and len(other.bodies) == 2
            folder.write("1", one)
            await until(lambda: client.concurrency == 8)
            await asyncio.gather(*(client.complete(ask(str(number))) for number in range(40)))
            assert len(one.bodies) > 1 and len(one.bodies) + len(other.bodies) == 43

        run_with(client, work)


def test_journal_keys_do_not_change_with_the_servers(folder: Folder) -> None:
    assert folder.client().identity == OpenAIClient("http://elsewhere:8000", "m").identity


def test_a_runs_configuration_names_a_folder(folder: Folder) -> None:
    with FakeOpenAI() as one, FakeOpenAI() as other:
        folder.write("1", one)
        folder.write("2", other)
        model = EndpointModel(endpoints_dir=folder.path, model="m", concurrency=3)
        assert endpoint_client(model, "models.judge", None).concurrency == 6
    missing = EndpointModel(endpoints_dir=folder.path / "nowhere", model="m")
    with pytest.raises(UsageError, match=r"models\.judge: .*nowhere"):
        endpoint_client(missing, "models.judge", None)


def test_requests_on_a_server_that_dies_are_answered_by_others(folder: Folder) -> None:
    with FakeOpenAI() as dying, FakeOpenAI() as healthy:
        dying.fault_of = lambda body: "reset"
        folder.write("1", dying)
        folder.write("2", healthy)
        client = folder.client()

        async def work() -> None:
            answers = await asyncio.gather(*(client.complete(ask(str(number))) for number in range(40)))
            assert [answer.text for answer in answers] == ["hello"] * 40 and len(healthy.bodies) == 40

        run_with(client, work)


def test_requests_on_a_server_that_has_left_without_a_word_are_moved(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "LEAVE_SECONDS", 0.1)
    with FakeOpenAI() as silent, FakeOpenAI() as healthy:
        silent.fault_of = lambda body: "hang"
        silent.hangs = 300.0
        folder.write("1", silent)
        client = folder.client(retry_policy=replace(QUICK, timeout=300.0))

        async def work() -> None:
            waiting = asyncio.gather(*(client.complete(ask(str(number))) for number in range(4)))
            await until(lambda: len(silent.headers) == 4)
            folder.write("2", healthy)
            (folder.path / "1").unlink()
            # Long before the connections close, or the requests' time is up.
            answers = await asyncio.wait_for(waiting, 60)
            assert [answer.text for answer in answers] == ["hello"] * 4

        run_with(client, work)


def test_an_empty_folder_waits_for_a_server_and_says_so(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    client = folder.client()
    with FakeOpenAI() as server, caplog.at_level(logging.WARNING):

        async def work() -> None:
            waiting = asyncio.gather(*(client.complete(ask(str(number))) for number in range(10)))
            await asyncio.sleep(0.1)
            folder.write("1", server)
            assert len(await waiting) == 10

        run_with(client, work)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and str(folder.path) in said[0] and "2 s" in said[0]


def test_a_folder_that_stays_empty_ends_the_run(folder: Folder) -> None:
    client = folder.client(retry_policy=replace(QUICK, max_outage=0.1))

    async def work() -> None:
        with pytest.raises(ServerRefused) as refused:
            await client.complete(ask("a"))
        assert str(folder.path) in str(refused.value)

    run_with(client, work)


def test_a_server_that_joins_with_another_model_is_excluded(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI() as server, FakeOpenAI() as wrong:
        wrong.fault_of = lambda body: 404
        folder.write("1", server)
        client = folder.client()

        async def work() -> None:
            await client.complete(ask("first"))
            folder.write("2", wrong)
            await until(lambda: client.concurrency == 8)
            answers = await asyncio.gather(*(client.complete(ask(str(number))) for number in range(20)))
            assert len(answers) == 20 and client.concurrency == 4

        with caplog.at_level(logging.WARNING):
            run_with(client, work)
        assert [f":{wrong.port}/" in record.getMessage() for record in caplog.records] == [True]


def test_if_no_server_has_the_model_the_run_ends(folder: Folder) -> None:
    with FakeOpenAI() as wrong:
        wrong.fault_of = lambda body: 404
        folder.write("1", wrong)
        client = folder.client()

        async def work() -> None:
            with pytest.raises(ServerRefused):
                await client.complete(ask("a"))

        run_with(client, work)


def test_files_that_are_no_servers_are_ignored(folder: Folder) -> None:
    with FakeOpenAI() as server:
        folder.write("1", server)
        folder.write("2", server)
        for name in (".nfs0001", "3.tmp", "4"):
            (folder.path / name).write_text("")
        (folder.path / "logs").mkdir()
        client = folder.client()
        assert client.concurrency == 4, "two files with one address are one server"
        run_with(client, lambda: until(lambda: True))


def test_a_file_without_an_address_is_an_error_at_the_start_and_a_warning_later(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    bad = folder.path / "job.1"
    bad.write_text("node7:8000")
    with pytest.raises(UsageError, match=str(bad)):
        folder.client()
    bad.unlink()
    with FakeOpenAI() as server, caplog.at_level(logging.WARNING):
        folder.write("1", server)
        client = folder.client()

        async def work() -> None:
            await client.complete(ask("a"))
            bad.write_text("node7:8000")
            await until(lambda: bool(caplog.records))
            await asyncio.sleep(0.2)
            await client.complete(ask("b"))

        run_with(client, work)
    assert [str(bad) in record.getMessage() for record in caplog.records] == [True]


def test_a_folder_that_is_missing_is_an_error_at_the_start_and_a_warning_later(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        OpenAIClient(folder.path / "nowhere", "m")
    with FakeOpenAI() as server, caplog.at_level(logging.WARNING):
        folder.write("1", server)
        client = folder.client()
        moved = folder.path.with_name("moved")

        async def work() -> None:
            await client.complete(ask("a"))
            folder.path.rename(moved)
            await until(lambda: bool(caplog.records))
            await client.complete(ask("b"))

        run_with(client, work)
    assert len(caplog.records) == 1


def test_more_requests_than_open_files_are_not_sent(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    with FakeOpenAI() as server, caplog.at_level(logging.WARNING):
        folder.write("1", server)
        client = folder.client(concurrency=1 << 24)
        assert client.concurrency < 1 << 24 and "ulimit -n" in caplog.records[0].getMessage()
