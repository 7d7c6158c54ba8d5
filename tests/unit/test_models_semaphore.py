# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from nemo_aligner_cai.models.http import adaptive_limit
from nemo_aligner_cai.models.http.adaptive_limit import AdaptiveLimit
from nemo_aligner_cai.models.http.semaphore import PrioritySemaphore


def test_waiting_holders_enter_by_priority_and_then_in_order() -> None:
    async def run() -> list[str]:
        semaphore, entered = PrioritySemaphore(1), list[str]()

        async def hold(name: str, priority: int) -> None:
            await semaphore.acquire(priority)
            entered.append(name)
            await asyncio.sleep(0)
            semaphore.release()

        await asyncio.gather(*(hold(name, int(name[0])) for name in ("9first", "2a", "1a", "2b", "1b")))
        assert semaphore.in_use == 0
        return entered

    assert asyncio.run(run()) == ["9first", "1a", "1b", "2a", "2b"]


def test_overload_halves_once_and_success_raises_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(adaptive_limit.time, "monotonic", lambda: clock[0])
    limit = AdaptiveLimit(8)
    for _ in range(5):
        limit.record_overload(8)
    assert limit.value == 4
    clock[0] = 2.0
    limit.record_overload(8)
    assert limit.value == 2
    for _ in range(100):
        limit.record_success()
    assert limit.value == 8


def test_overload_halves_the_requests_in_flight_if_the_limit_was_not_reached() -> None:
    limit = AdaptiveLimit(64)
    limit.record_overload(10)
    assert limit.value == 5


def test_a_higher_limit_admits_those_who_wait() -> None:
    async def run() -> None:
        semaphore = PrioritySemaphore(0)
        waiting = [asyncio.ensure_future(semaphore.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        semaphore.set_limit(2)
        await asyncio.sleep(0)
        assert [one.done() for one in waiting] == [True, True, False]
        waiting[2].cancel()

    asyncio.run(run())


def test_a_cancelled_holder_gives_its_place_on() -> None:
    async def run() -> None:
        semaphore = PrioritySemaphore(1)
        order: list[str] = []

        async def hold(name: str) -> None:
            await semaphore.acquire()
            try:
                order.append(name)
                await asyncio.sleep(0.01)
            finally:
                semaphore.release()

        first, second, third = (asyncio.ensure_future(hold(name)) for name in "abc")
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, third)
        assert order == ["a", "c"] and semaphore.in_use == 0
        # Let in and cancelled in the same tick.
        fourth = asyncio.ensure_future(hold("d"))
        fifth = asyncio.ensure_future(hold("e"))
        await asyncio.sleep(0)
        fourth.cancel()
        await asyncio.sleep(0)
        fifth.cancel()
        await asyncio.gather(fourth, fifth, return_exceptions=True)
        assert semaphore.in_use == 0

    asyncio.run(run())
