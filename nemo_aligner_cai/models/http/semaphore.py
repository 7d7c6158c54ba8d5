# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A semaphore with priorities and a variable limit."""

import asyncio
import heapq
from itertools import count


class PrioritySemaphore:
    """Admits up to `limit` holders: the lowest priority value first, then in order of arrival."""

    def __init__(self, limit: int) -> None:
        """`limit` may be changed by `set_limit`; a lower limit admits nobody until enough slots are returned."""
        self.limit = limit
        self.in_use = 0
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    async def acquire(self, priority: int = 0) -> None:
        """Wait for a slot. A cancelled call holds none."""
        if self.in_use < self.limit and not self._waiters:
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

    def set_limit(self, limit: int) -> None:
        """Change the limit."""
        self.limit = limit
        self._admit()

    def _admit(self) -> None:
        while self._waiters and self.in_use < self.limit:
            _, _, waiter = heapq.heappop(self._waiters)
            if not waiter.done():
                self.in_use += 1
                waiter.set_result(None)
