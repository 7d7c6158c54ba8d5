# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The equivalent servers of one model: which of them gets a request, and how many requests each may have.

Input:  the addresses of servers, which may join and leave at any time
Output: `choose(affinity)`, the home of a prompt prefix unless it is too busy, or else the least busy server

Choosing does not depend on the number of servers: they are kept in groups of equal load.
"""

import asyncio
import heapq
import time
from collections.abc import Callable, Iterable
from itertools import count

from nemo_aligner_cai.models.http.adaptive_limit import AdaptiveLimit
from nemo_aligner_cai.models.http.home_table import HomeTable
from nemo_aligner_cai.models.http.semaphore import PrioritySemaphore

_AFFINITY_SHARE = 8
"""A home may have up to 1/8 of its limit more requests than the least busy server, and than its limit.

Source: Mirrokni et al., "Consistent hashing with bounded loads", 2016.
"""
_MAX_BACK_OFF = 30.0
_Group = dict["Endpoint", None]
"""A set in order of insertion, so that servers of equal load take turns."""


class Endpoint:
    """One server.

    Attributes:
        address: URL without the path of a request.
        limit: concurrent requests that it accepts.
        in_flight: concurrent requests that it has.
        has_left: it is no longer in the pool. A server that returns is a new endpoint.
    """

    def __init__(self, address: str, max_limit: int) -> None:
        self.address = address
        self.limit = AdaptiveLimit(max_limit)
        self.in_flight = 0
        self.has_left = False
        self.failures = 0
        self.retry_at = 0.0
        self.group: _Group | None = None


class EndpointPool:
    """The servers of one model, with the semaphore that bounds the requests to all of them."""

    def __init__(
        self,
        addresses: Iterable[str] = (),
        *,
        per_endpoint: int,
        total: int | None = None,
        name: str = "the pool",
        is_changing: bool = False,
    ) -> None:
        """Create a pool.

        Args:
            addresses: the first servers.
            name: for messages.
            is_changing: servers join and leave during a run.
            per_endpoint: maximum number of concurrent requests to one server.
            total: maximum number of concurrent requests to all servers; None for no other limit than each server's.
        """
        self.name = name
        self.is_changing = is_changing
        self.per_endpoint = per_endpoint
        self._total = total
        self._slack = per_endpoint // _AFFINITY_SHARE
        self._endpoints: dict[str, Endpoint] = {}
        self._homes = HomeTable()
        self._capacity = 0
        self._by_load: list[_Group] = [{}]
        self._least = 0
        self._full: _Group = {}
        self._backing_off: list[tuple[float, int, Endpoint]] = []
        self._tickets = count()
        self._arrival: asyncio.Future[None] | None = None
        self.semaphore = PrioritySemaphore(1)
        self.on_leave: list[Callable[[Endpoint], None]] = []
        for address in addresses:
            self.add(address)

    def __len__(self) -> int:
        """Return the number of servers."""
        return len(self._endpoints)

    def __contains__(self, address: str) -> bool:
        """True if a server is in the pool."""
        return address in self._endpoints

    @property
    def addresses(self) -> tuple[str, ...]:
        """The servers' addresses."""
        return tuple(self._endpoints)

    @property
    def concurrency(self) -> int:
        """Requests that the servers can have at the same time if none is overloaded."""
        requests = self.per_endpoint * max(1, len(self._endpoints))
        return requests if self._total is None else min(self._total, requests)

    @property
    def has_available(self) -> bool:
        """True if some server is not in back-off."""
        return bool(self._full) or self._least_busy() is not None

    @property
    def is_capped(self) -> bool:
        """True if `total` allows fewer requests than the servers accept."""
        return self.concurrency < self.per_endpoint * len(self._endpoints)

    def add(self, address: str) -> None:
        """Add a server. An address that is in the pool already is not added again."""
        if address in self._endpoints:
            return
        endpoint = self._endpoints[address] = Endpoint(address, self.per_endpoint)
        self._homes.add(address)
        self._place(endpoint)
        self._change_capacity(endpoint.limit.value)
        if self._arrival is not None:
            self._arrival.set_result(None)
            self._arrival = None

    def remove(self, address: str) -> None:
        """Remove a server, if it is in the pool. It gets no further requests; `on_leave` hears of those in flight."""
        endpoint = self._endpoints.pop(address, None)
        if endpoint is None:
            return
        endpoint.has_left = True
        self._homes.remove(address)
        self._take_out(endpoint)
        self._change_capacity(-endpoint.limit.value)
        for notify in self.on_leave:
            notify(endpoint)

    async def wait_until_filled(self, seconds: float) -> None:
        """Wait until there is a server; raises asyncio.TimeoutError."""
        if self._endpoints:
            return
        if self._arrival is None:
            self._arrival = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(asyncio.shield(self._arrival), seconds)

    def choose(self, affinity: int) -> Endpoint | None:
        """Return the server for a request; None if the pool is empty.

        If all servers are at their limits, one of them gets the request; if all have failed, the one that may be tried
        again first.
        """
        if not self._endpoints:
            return None
        self._end_back_offs()
        least = self._least_busy()
        home = self._endpoints[self._homes.home(affinity)] if len(self._endpoints) > 1 else None
        if home is not None and home.group is not None and self._may_overfill(home, least):
            return home
        if least is not None:
            return least
        if self._full:
            endpoint = next(iter(self._full))
            self._place(endpoint)
            return endpoint
        return self._backing_off[0][2]

    def begin(self, endpoint: Endpoint) -> None:
        """Count a request that is sent to a server."""
        endpoint.in_flight += 1
        self._place(endpoint)

    def end(self, endpoint: Endpoint) -> None:
        """Count a request that a server has answered, or that has failed."""
        endpoint.in_flight -= 1
        self._place(endpoint)

    def record_overload(self, endpoint: Endpoint) -> None:
        """Lower a server's limit after a 429 response."""
        before = endpoint.limit.value
        endpoint.limit.record_overload(endpoint.in_flight)
        self._limit_changed(endpoint, before)

    def record_success(self, endpoint: Endpoint) -> None:
        """Raise a server's limit, if it was lowered."""
        before = endpoint.limit.value
        endpoint.limit.record_success()
        self._limit_changed(endpoint, before)

    def mark_failed(self, endpoint: Endpoint) -> None:
        """Prefer other servers for 1 s, 2 s, 4 s, up to 30 s."""
        endpoint.failures += 1
        endpoint.retry_at = time.monotonic() + min(_MAX_BACK_OFF, 2.0 ** (endpoint.failures - 1))
        heapq.heappush(self._backing_off, (endpoint.retry_at, next(self._tickets), endpoint))
        self._place(endpoint)

    def mark_healthy(self, endpoint: Endpoint) -> None:
        """End a server's back-off."""
        if endpoint.failures:
            endpoint.failures, endpoint.retry_at = 0, 0.0
            self._place(endpoint)

    def _may_overfill(self, home: Endpoint, least: Endpoint | None) -> bool:
        """True if the home is not much busier than others."""
        bound = home.limit.value + home.limit.value // _AFFINITY_SHARE
        return home.in_flight < bound and (least is None or home.in_flight <= least.in_flight + self._slack)

    def _least_busy(self) -> Endpoint | None:
        """Return the least busy server below its limit and not in back-off; None if there is none."""
        while self._least < len(self._by_load):
            group = self._by_load[self._least]
            if group:
                return next(iter(group))
            self._least += 1
        return None

    def _end_back_offs(self) -> None:
        """Make servers available whose back-off is over. The heap may hold outdated entries."""
        waiting = self._backing_off
        now = time.monotonic() if waiting else 0.0
        while waiting:
            retry_at, _, endpoint = waiting[0]
            is_outdated = endpoint.has_left or endpoint.retry_at != retry_at
            if not is_outdated and retry_at > now:
                return
            heapq.heappop(waiting)
            if not is_outdated:
                endpoint.retry_at = 0.0
                self._place(endpoint)

    def _place(self, endpoint: Endpoint) -> None:
        """Put a server into the group of its load; none if it has left or is in back-off."""
        self._take_out(endpoint)
        if endpoint.has_left or endpoint.retry_at:
            return
        load = endpoint.in_flight
        if load >= endpoint.limit.value:
            endpoint.group = self._full
        else:
            while len(self._by_load) <= load:
                self._by_load.append({})
            endpoint.group = self._by_load[load]
            self._least = min(self._least, load)
        endpoint.group[endpoint] = None

    def _take_out(self, endpoint: Endpoint) -> None:
        if endpoint.group is not None:
            del endpoint.group[endpoint]
            endpoint.group = None

    def _limit_changed(self, endpoint: Endpoint, before: int) -> None:
        if endpoint.limit.value != before and not endpoint.has_left:
            self._place(endpoint)
            self._change_capacity(endpoint.limit.value - before)

    def _change_capacity(self, change: int) -> None:
        """Keep the semaphore's limit at the sum of the servers' limits. An empty pool lets one request wait."""
        self._capacity += change
        limit = self._capacity if self._total is None else min(self._total, self._capacity)
        self.semaphore.set_limit(max(1, limit))
