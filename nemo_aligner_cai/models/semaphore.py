# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A semaphore with priorities and an adaptive limit."""

import asyncio
import heapq
import time
from itertools import count

_DECREASE_INTERVAL = 1.0
"""Minimum seconds between two decreases: one overload produces many 429 responses and must count once."""


class AdaptiveSemaphore:
    """Admits up to `limit` holders: the lowest priority value first, then in order of arrival.

    `record_overload` halves the limit and `record_success` raises it slightly (additive increase, multiplicative
    decrease), so that a server with an unknown quota is fully used.
    """

    def __init__(self, max_limit: int) -> None:
        """`max_limit` is the initial and the highest limit, at least 1."""
        self.max_limit = max_limit
        self.limit = float(max_limit)
        self.in_use = 0
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = count()
        self._decreased_at = float("-inf")

    async def acquire(self, priority: int = 0) -> None:
        """Wait for a slot. A cancelled call holds none."""
        if self.in_use < int(self.limit) and not self._waiters:
            self.in_use += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (priority, next(self._arrivals), waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # Admitted and cancelled in the same tick: pass the slot on.
                self.release()
            raise

    def release(self) -> None:
        """Return a slot."""
        self.in_use -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiters and self.in_use < int(self.limit):
            _, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                self.in_use += 1
                waiter.set_result(None)

    def record_overload(self) -> None:
        """Halve the limit."""
        now = time.monotonic()
        if now - self._decreased_at >= _DECREASE_INTERVAL:
            self._decreased_at = now
            self.limit = max(1.0, self.limit / 2)

    def record_success(self) -> None:
        """Raise the limit by 1 per `limit` successes."""
        if self.limit < self.max_limit:
            self.limit = min(float(self.max_limit), self.limit + 1 / self.limit)
            self._admit()
