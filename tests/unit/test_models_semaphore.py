# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
import asyncio

import pytest

from nemo_aligner_cai.models import semaphore as semaphore_module
from nemo_aligner_cai.models.semaphore import AdaptiveSemaphore


def test_waiting_holders_enter_by_priority_and_then_in_order() -> None:
    async def run() -> list[str]:
        semaphore, entered = AdaptiveSemaphore(1), list[str]()

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
    monkeypatch.setattr(semaphore_module.time, "monotonic", lambda: clock[0])
    semaphore = AdaptiveSemaphore(8)
    for _ in range(5):
        semaphore.record_overload()
    assert semaphore.limit == 4
    clock[0] = 2.0
    semaphore.record_overload()
    assert semaphore.limit == 2
    for _ in range(100):
        semaphore.record_success()
    assert semaphore.limit == 8


def test_a_cancelled_holder_gives_its_place_on() -> None:
    async def run() -> None:
        semaphore = AdaptiveSemaphore(1)
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
