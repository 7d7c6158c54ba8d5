# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""HTTP transport to model servers: endpoint selection, concurrency and rate limits, timeouts, retries.

All retries happen here. The transport uses aiohttp and orjson because HTTP and JSON are half of a fast client's cost:
the openai SDK spends 7 ms of CPU on a few-shot chat call, this client under 0.5 ms (``benchmarks/client_cpu.py``).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import aiohttp
import orjson
from yarl import URL

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.models.base import CallFailed, ClientStats, ServerRefused
from nemo_aligner_cai.models.http.endpoint_pool import Endpoint, EndpointPool
from nemo_aligner_cai.models.http.exchange import (
    ACCEPTED_ENCODINGS,
    CleanConnector,
    described,
    key_spellings,
    permanent_failure,
    proxy_of,
    read_payload,
    redact,
)
from nemo_aligner_cai.models.http.rate_limiter import RateLimiter
from nemo_aligner_cai.models.http.retry import RetryableError, RetryPolicy, RetryState
from nemo_aligner_cai.models.http.route import (
    SERVER_WIDE,
    RejectedError,
    Route,
    UnusableEndpointError,
    raise_for_status,
)
from nemo_aligner_cai.models.responses import EXCERPT_CHARS, decode, excerpt

T = TypeVar("T")

_log = logging.getLogger(__name__)
_MAX_CONTROLS = 3
"""Other requests that are tried before the first success, to find out if a server rejects every request."""
_COST_OF_LEAVING = 0.25
"""Attempts that a lost connection costs where servers leave: that is likelier than a request that ends servers."""
LEAVE_SECONDS = 30.0
"""Seconds in which a server that has left may finish its requests. Slurm kills a job after as many (KillWait)."""


class Transport:
    """Sends JSON requests to equivalent endpoints and retries until a response is valid."""

    def __init__(
        self,
        pool: EndpointPool,
        path: str,
        *,
        method: str,
        retry_policy: RetryPolicy,
        rate_limiter: RateLimiter | None = None,
        key: str | None = None,
        max_response_bytes: int = 4 << 20,
    ) -> None:
        """Create a transport. Connections are opened by the first request.

        Args:
            pool: equivalent endpoints, and the limits on the requests to them. Transports may share a pool.
            path: path of the requests, appended to an endpoint's address.
            method: HTTP method.
            retry_policy: timeouts and retries.
            rate_limiter: the service's rate limits, if any.
            key: API key, sent as a bearer token. It is removed from everything that the server returns.
            max_response_bytes: larger responses count as malformed.
        """
        self._pool = pool
        self._path = path
        self._routes: WeakKeyDictionary[Endpoint, Route] = WeakKeyDictionary()
        self._method = method
        self._retry_policy = retry_policy
        self._rate_limiter = rate_limiter
        self._key = key
        self._max_response_bytes = max_response_bytes
        self._connector: CleanConnector | None = None
        self._session: aiohttp.ClientSession | None = None
        self._large_response_lock = asyncio.Lock()
        self._last_success_at = float("-inf")
        self._outage_logged = False
        self._in_progress: dict[object, bytes] = {}
        self.stats = ClientStats()
        pool.on_leave.append(self._drop_later)

    async def send(
        self,
        body: Mapping[str, Any],
        parse: Callable[[Any], T],
        *,
        probe: Callable[[], Mapping[str, Any]],
        priority: int = 0,
        affinity: int = 0,
    ) -> T:
        """Send `body` and return ``parse(response)``.

        Args:
            body: JSON object to send.
            parse: converts the decoded response; raises RetryableError if it is malformed.
            probe: returns a body with the same settings and harmless content. It is sent after a rejection, to find
                out if the server rejects only this request or every request.
            priority: among waiting requests, lower values go first.
            affinity: requests with equal values share a prompt prefix. They go to the same endpoint, and so to its
                prefix cache, unless that endpoint is too busy.

        Raises:
            CallFailed: retries are exhausted, or the server rejects this request.
            ServerRefused: the server rejects every request, or is unavailable for longer than the retry policy allows.
        """
        content = self._encode(body)
        ticket = object()
        self._in_progress[ticket] = content
        try:
            await self._pool.semaphore.acquire(priority)
            try:
                return await self._send_until_accepted(content, parse, probe, affinity)
            finally:
                self._pool.semaphore.release()
        finally:
            del self._in_progress[ticket]

    async def _send_until_accepted(
        self, content: bytes, parse: Callable[[Any], T], probe: Callable[[], Mapping[str, Any]], affinity: int
    ) -> T:
        """Send to one endpoint after another, as long as the reason of a rejection is the endpoint."""
        while True:
            try:
                return await self._send_with_retries(content, parse, affinity)
            except RejectedError as rejected:
                route = rejected.route
                error = await self._blame(rejected, content, probe)
            except UnusableEndpointError as unusable:
                route, error = unusable.route, unusable.refusal
            if isinstance(error, CallFailed) or not self._exclude(route, error):
                raise error

    def _exclude(self, route: Route, refusal: CaiError) -> bool:
        """Exclude an endpoint that refuses everything, if others of a changing pool have answered.

        A server that joins with a wrong model must not end a run of many hours. One that has left needs no exclusion.
        """
        endpoint = route.endpoint
        if endpoint.has_left:
            return True
        has_succeeded = self._last_success_at > float("-inf")
        if not self._pool.is_changing or route.last_success_body is not None or not has_succeeded:
            return False
        _log.warning("%s; this endpoint is not used again until its file changes", refusal)
        self._pool.remove(endpoint.address)
        return True

    async def _send_with_retries(self, content: bytes, parse: Callable[[Any], T], target: int | Route) -> T:
        """Send to a route, or to the endpoint that is chosen for an affinity value at each attempt."""
        state: RetryState | None = None
        while True:
            route = target if isinstance(target, Route) else await self._choose(target)
            try:
                return await self._attempt(content, parse, route)
            except RetryableError as error:
                state = state or RetryState(self._retry_policy)
                next_step = self._wait_or_error(error, state)
                if isinstance(target, Route) and target.endpoint.has_left:
                    next_step = CallFailed(error.reason, self._redact(error.detail))
            # Raised outside the handler: the traceback of `error` would keep the response in memory.
            if isinstance(next_step, CaiError):
                raise next_step
            self.stats.retries += 1
            # Another endpoint can have the request at once.
            can_move = not isinstance(target, Route) and bool(route.endpoint.retry_at) and self._pool.has_available
            await asyncio.sleep(0.0 if can_move else next_step)

    async def _blame(
        self, rejected: RejectedError, content: bytes, probe: Callable[[], Mapping[str, Any]]
    ) -> CaiError:
        """Return CallFailed for a rejected request, or ServerRefused if the server rejects the control requests too.

        Control requests are the probe and the last request that succeeded. Before the first success, they are the
        probe and a few of the other requests in progress: content filters reject many of the prompts that are sent
        here, and some reject the probe.

        The decision depends on the server alone, not on how many requests succeeded before or at the same time. A key
        can be revoked at any time, so only a success that was sent after the rejection proves that it is valid.
        Invalid settings were invalid from the beginning.
        """
        route = rejected.route
        is_server_wide = rejected.status in SERVER_WIDE
        since = rejected.received_at if is_server_wide else float("-inf")
        async with route.probe_lock:
            if route.last_success_sent_at <= since:
                # A content filter may reject the probe as well, but not a request that it has let through before.
                proven = route.last_success_body if is_server_wide else None
                controls = [proven] if proven is not None else self._other_requests(content)
                if not (proven is not None and route.rejects_probe):
                    controls.insert(0, self._encode(probe()))
                try:
                    await self._check(route, controls)
                except RejectedError as again:
                    return ServerRefused(again.message, status=again.status)
                except UnusableEndpointError as unusable:
                    return unusable.refusal
                except CallFailed as failure:
                    return ServerRefused(f"{rejected.message}; the probe request failed too: {failure}")
        return CallFailed(f"HTTP {rejected.status}", rejected.message)

    async def _check(self, route: Route, controls: Sequence[bytes]) -> None:
        """Send the control requests until one succeeds; raises RejectedError if the endpoint rejects them all."""
        for number, content in enumerate(controls, 1):
            try:
                await self._send_with_retries(content, lambda response: None, route)
            except RejectedError:
                if number == len(controls):
                    raise
            else:
                route.rejects_probe |= number > 1
                return

    def _other_requests(self, content: bytes) -> list[bytes]:
        """Return up to `_MAX_CONTROLS` different requests in progress, other than `content`; the latest first."""
        others = (body for body in reversed(self._in_progress.values()) if body != content)
        return list(dict.fromkeys(islice(others, _MAX_CONTROLS)))

    def _wait_or_error(self, error: RetryableError, state: RetryState) -> float | CaiError:
        """Return the seconds until the next attempt, or the final error.

        ServerRefused ends the run after an outage during which no other request succeeded: otherwise each request
        would wait in turn.
        """
        wait = state.wait_after(error)
        if wait is None:
            detail = self._redact(error.detail)
            if state.outage_started is not None and self._last_success_at < state.outage_started:
                return ServerRefused(f"{error.reason}, for {self._retry_policy.max_outage:g} s: {detail}")
            return CallFailed(error.reason, detail)
        if error.unavailable and not self._outage_logged and not self._pool.has_available:
            self._outage_logged = True
            message = self._redact(f"{error.reason}: {error.detail}")
            _log.warning("%s; waiting up to %g s for the server", message, self._retry_policy.max_outage)
        return wait

    def _encode(self, body: Mapping[str, Any]) -> bytes:
        try:
            return orjson.dumps(body)
        except TypeError as error:
            raise CallFailed("the text cannot be sent (lone surrogate?)", str(error)) from None

    async def _attempt(self, content: bytes, parse: Callable[[Any], T], route: Route) -> T:
        if self._rate_limiter is not None:
            await self._rate_limiter.acquire(content)
        self._pool.begin(route.endpoint)
        self.stats.in_flight += 1
        sent_at = time.monotonic()
        try:
            payload = await self._exchange(route, content)
        finally:
            self._pool.end(route.endpoint)
            self.stats.in_flight -= 1
        response = decode(route.url, payload)
        route.last_success_sent_at = max(route.last_success_sent_at, sent_at)
        route.last_success_body = content
        self._last_success_at, self._outage_logged = time.monotonic(), False
        try:
            result = parse(response)
        except RetryableError as error:
            raise RetryableError(error.reason, error.detail or f"{route.url}: {excerpt(payload)}") from None
        self._pool.record_success(route.endpoint)
        return result

    async def _exchange(self, route: Route, content: bytes) -> bytes:
        """Return the body of a 2xx response, without the API key."""
        try:
            async with self._open_session().request(
                self._method, route.url, data=content, proxy=route.proxy, allow_redirects=False
            ) as response:
                payload = await read_payload(response, limit=self._max_response_bytes, lock=self._large_response_lock)
        except asyncio.TimeoutError:
            self._pool.mark_failed(route.endpoint)
            raise RetryableError("no answer in time", f"{route.url}: {self._retry_policy.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise await self._connection_error(route, error) from None
        payload = redact(payload, self._key)
        self._check_status(route, response, payload)
        self._pool.mark_healthy(route.endpoint)
        return payload

    async def _connection_error(self, route: Route, error: Exception) -> Exception:
        if route.last_success_body is None:
            reason = await permanent_failure(error, route.url)
            if reason is not None:
                return UnusableEndpointError(route, ServerRefused(self._redact(f"{route.url}: {reason}")))
        self._pool.mark_failed(route.endpoint)
        if isinstance(error, aiohttp.ClientConnectorError):
            return RetryableError("server not reachable", f"{route.url}: {error}", unavailable=True)
        cost = _COST_OF_LEAVING if self._pool.is_changing else 1.0
        # Redacted before the cut: half a key would not be found. A status line can repeat the key.
        detail = self._redact(f"{route.url}: {described(error)}")[:EXCERPT_CHARS]
        return RetryableError("connection lost", detail, cost=cost)

    def _check_status(self, route: Route, response: aiohttp.ClientResponse, payload: bytes) -> None:
        try:
            raise_for_status(route, response, payload, self._redact)
        except RetryableError as error:
            if response.status == 429:
                self._pool.record_overload(route.endpoint)
            elif error.unavailable:
                # It responds at once, so it would look like the least busy endpoint.
                self._pool.mark_failed(route.endpoint)
            raise

    async def _choose(self, affinity: int) -> Route:
        """Return the route to the endpoint for an affinity value; raises ServerRefused if the pool stays empty."""
        while (endpoint := self._pool.choose(affinity)) is None:
            max_outage = self._retry_policy.max_outage
            if not self._outage_logged:
                self._outage_logged = True
                _log.warning("%s has no server; waiting up to %g s for one", self._pool.name, max_outage)
            try:
                await self._pool.wait_until_filled(max_outage)
            except asyncio.TimeoutError:
                raise ServerRefused(f"{self._pool.name} has had no server for {max_outage:g} s") from None
        route = self._routes.get(endpoint)
        if route is None:
            url = URL(endpoint.address + self._path)
            route = self._routes[endpoint] = Route(endpoint, url, proxy_of(url))
        return route

    def _drop_later(self, endpoint: Endpoint) -> None:
        """Close the connections to a server that has left, after the time in which it may finish its requests."""
        if endpoint.in_flight:
            asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._drop, URL(endpoint.address))

    def _drop(self, url: URL) -> None:
        if self._connector is not None and str(url) not in self._pool:
            self._connector.drop(url)

    def _open_session(self) -> aiohttp.ClientSession:
        # Created by the first request: a session belongs to the running event loop.
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept-Encoding": ACCEPTED_ENCODINGS}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._connector = CleanConnector()
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._retry_policy.timeout),
                headers=headers,
                auto_decompress=False,
            )
        return self._session

    def _redact(self, text: str) -> str:
        for spelling in key_spellings(self._key) if self._key else ():
            text = text.replace(spelling, "***")
        return text

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = self._connector = None
