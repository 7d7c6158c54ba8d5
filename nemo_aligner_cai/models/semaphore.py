# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How many requests are on their way at once, and which goes next."""

import asyncio
import heapq
import time
from itertools import count

_BACK_OFF_PAUSE = 1.0
"""Seconds between two reductions: one overload answers many requests with 429 at once, and counts once."""


class AdaptiveSemaphore:
    """Lets at most `limit` holders in, the lowest priority number first, and in order of arrival among equals.

    `overloaded` halves the limit and each success raises it a little (additive increase, multiplicative decrease), so
    that a server with an unknown quota is used as fully as it allows.
    """

    def __init__(self, limit: int) -> None:
        """`limit` is the most that are ever let in, at least 1."""
        self.most = limit
        self.limit = float(limit)
        self.inside = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = count()
        self._reduced_at = float("-inf")

    async def enter(self, priority: int = 0) -> None:
        """Take one of the places, which `leave` gives back; cancelled, it takes none."""
        if self.inside < int(self.limit) and not self._waiting:
            self.inside += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._arrivals), place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                # Let in and cancelled in the same moment: the place goes to the next.
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.inside < int(self.limit):
            _, _, place = heapq.heappop(self._waiting)
            if not place.done():
                self.inside += 1
                place.set_result(None)

    def overloaded(self) -> None:
        """The server said that this is too much."""
        now = time.monotonic()
        if now - self._reduced_at >= _BACK_OFF_PAUSE:
            self._reduced_at = now
            self.limit = max(1.0, self.limit / 2)

    def succeeded(self) -> None:
        """The server answered."""
        if self.limit < self.most:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
            self._let_in()
