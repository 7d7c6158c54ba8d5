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
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeVar

import aiohttp
import orjson
from yarl import URL

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files.json_items import MAX_VALUES, has_too_many_values
from nemo_aligner_cai.models.base import CallFailed, ClientStats, ServerRefused
from nemo_aligner_cai.models.exchange import (
    ACCEPTED_ENCODINGS,
    CleanConnector,
    key_spellings,
    permanent_failure,
    proxy_of,
    read_payload,
    redact,
)
from nemo_aligner_cai.models.rate_limiter import RateLimiter
from nemo_aligner_cai.models.retry import RetryableError, RetryPolicy, RetryState
from nemo_aligner_cai.models.semaphore import AdaptiveSemaphore

T = TypeVar("T")

_log = logging.getLogger(__name__)
_RETRYABLE = frozenset({408, 409, 425, 429})
_SERVER_WIDE = frozenset({*range(300, 400), 401, 402, 403, 404, 405, 407})
"""Statuses that may start to apply to all requests at any time: a revoked key, an empty account, a moved server."""
_UNAVAILABLE = frozenset({429, 502, 503, 504})
"""Statuses of a server that is up but cannot serve now; they are handled like an unreachable server."""
_EXCERPT_CHARS = 300
"""Characters of a response that messages show."""
_MAX_CONTROLS = 3
"""Other requests that are tried before the first success, to find out if a server rejects every request."""
_AFFINITY_SHARE = 8
"""Prefix affinity may give an endpoint up to 1/8 of the concurrency limit more requests than the least busy one."""


@dataclass
class _Endpoint:
    url: URL
    proxy: URL | None = None
    in_flight: int = 0
    failures: int = 0
    retry_at: float = 0.0
    last_success_sent_at: float = float("-inf")
    last_success_body: bytes | None = None
    rejects_probe: bool = False
    """The probe was rejected while an earlier successful request succeeded again."""
    probe_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def mark_failed(self) -> None:
        """Back off: 1 s, 2 s, 4 s, up to 30 s."""
        self.failures += 1
        self.retry_at = time.monotonic() + min(30.0, 2.0 ** (self.failures - 1))

    def mark_healthy(self) -> None:
        self.failures, self.retry_at = 0, 0.0


class _RejectedError(Exception):
    """The server rejected this request with a status that a retry would not change."""

    def __init__(self, endpoint: _Endpoint, status: int, message: str) -> None:
        super().__init__(message)
        self.endpoint, self.status, self.message, self.received_at = endpoint, status, message, time.monotonic()


class Transport:
    """Sends JSON requests to equivalent endpoints and retries until a response is valid."""

    def __init__(
        self,
        urls: tuple[str, ...],
        *,
        method: str,
        concurrency: int,
        retry_policy: RetryPolicy,
        rate_limiter: RateLimiter | None = None,
        key: str | None = None,
        max_response_bytes: int = 4 << 20,
    ) -> None:
        """Create a transport. Connections are opened by the first request.

        Args:
            urls: equivalent endpoints.
            method: HTTP method.
            concurrency: maximum number of requests in flight.
            retry_policy: timeouts and retries.
            rate_limiter: the service's rate limits, if any.
            key: API key, sent as a bearer token. It is removed from everything that the server returns.
            max_response_bytes: larger responses count as malformed.

        Raises:
            UsageError: the environment configures an unsupported proxy for an endpoint.
        """
        self._endpoints = [_Endpoint(URL(url), proxy_of(URL(url))) for url in urls]
        self._method = method
        self._retry_policy = retry_policy
        self._rate_limiter = rate_limiter
        self._key = key
        self._max_response_bytes = max_response_bytes
        self._session: aiohttp.ClientSession | None = None
        self._large_response_lock = asyncio.Lock()
        self._last_success_at = float("-inf")
        self._outage_logged = False
        self._in_progress: dict[object, bytes] = {}
        self.semaphore = AdaptiveSemaphore(concurrency)
        self.stats = ClientStats()

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
            await self.semaphore.acquire(priority)
            try:
                try:
                    return await self._send_with_retries(content, parse, lambda: self._choose(affinity))
                except _RejectedError as rejected:
                    error = await self._blame(rejected, content, probe)
                raise error
            finally:
                self.semaphore.release()
        finally:
            del self._in_progress[ticket]

    async def _send_with_retries(
        self, content: bytes, parse: Callable[[Any], T], choose: Callable[[], _Endpoint]
    ) -> T:
        state: RetryState | None = None
        while True:
            try:
                return await self._attempt(content, parse, choose())
            except RetryableError as error:
                state = state or RetryState(self._retry_policy)
                next_step = self._wait_or_error(error, state)
            # Raised outside the handler: the traceback of `error` would keep the response in memory.
            if isinstance(next_step, CaiError):
                raise next_step
            self.stats.retries += 1
            await asyncio.sleep(next_step)

    async def _blame(
        self, rejected: _RejectedError, content: bytes, probe: Callable[[], Mapping[str, Any]]
    ) -> CaiError:
        """Return CallFailed for a rejected request, or ServerRefused if the server rejects the control requests too.

        Control requests are the probe and the last request that succeeded. Before the first success, they are the
        probe and a few of the other requests in progress: content filters reject many of the prompts that are sent
        here, and some reject the probe.

        The decision depends on the server alone, not on how many requests succeeded before or at the same time. A key
        can be revoked at any time, so only a success that was sent after the rejection proves that it is valid.
        Invalid settings were invalid from the beginning.
        """
        endpoint = rejected.endpoint
        is_server_wide = rejected.status in _SERVER_WIDE
        since = rejected.received_at if is_server_wide else float("-inf")
        async with endpoint.probe_lock:
            if endpoint.last_success_sent_at <= since:
                # A content filter may reject the probe as well, but not a request that it has let through before.
                proven = endpoint.last_success_body if is_server_wide else None
                controls = [proven] if proven is not None else self._other_requests(content)
                if not (proven is not None and endpoint.rejects_probe):
                    controls.insert(0, self._encode(probe()))
                try:
                    await self._check(endpoint, controls)
                except _RejectedError as again:
                    return ServerRefused(again.message, status=again.status)
                except CallFailed as failure:
                    return ServerRefused(f"{rejected.message}; the probe request failed too: {failure}")
        return CallFailed(f"HTTP {rejected.status}", rejected.message)

    async def _check(self, endpoint: _Endpoint, controls: Sequence[bytes]) -> None:
        """Send the control requests until one succeeds; raises _RejectedError if the endpoint rejects them all."""
        for number, content in enumerate(controls, 1):
            try:
                await self._send_with_retries(content, lambda response: None, lambda: endpoint)
            except _RejectedError:
                if number == len(controls):
                    raise
            else:
                endpoint.rejects_probe |= number > 1
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
        if error.unavailable and not self._outage_logged:
            self._outage_logged = True
            message = self._redact(f"{error.reason}: {error.detail}")
            _log.warning("%s; waiting up to %g s for the server", message, self._retry_policy.max_outage)
        return wait

    def _encode(self, body: Mapping[str, Any]) -> bytes:
        try:
            return orjson.dumps(body)
        except TypeError as error:
            raise CallFailed("the text cannot be sent (lone surrogate?)", str(error)) from None

    async def _attempt(self, content: bytes, parse: Callable[[Any], T], endpoint: _Endpoint) -> T:
        if self._rate_limiter is not None:
            await self._rate_limiter.acquire(content)
        endpoint.in_flight += 1
        self.stats.in_flight += 1
        sent_at = time.monotonic()
        try:
            payload = await self._exchange(endpoint, content)
        finally:
            endpoint.in_flight -= 1
            self.stats.in_flight -= 1
        response = _decode(endpoint, payload)
        endpoint.last_success_sent_at = max(endpoint.last_success_sent_at, sent_at)
        endpoint.last_success_body = content
        self._last_success_at, self._outage_logged = time.monotonic(), False
        try:
            result = parse(response)
        except RetryableError as error:
            raise RetryableError(error.reason, error.detail or f"{endpoint.url}: {_excerpt(payload)}") from None
        self.semaphore.record_success()
        return result

    async def _exchange(self, endpoint: _Endpoint, content: bytes) -> bytes:
        """Return the body of a 2xx response, without the API key."""
        try:
            async with self._open_session().request(
                self._method, endpoint.url, data=content, proxy=endpoint.proxy, allow_redirects=False
            ) as response:
                payload = await read_payload(response, limit=self._max_response_bytes, lock=self._large_response_lock)
        except asyncio.TimeoutError:
            endpoint.mark_failed()
            raise RetryableError("no answer in time", f"{endpoint.url}: {self._retry_policy.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise await self._connection_error(endpoint, error) from None
        payload = redact(payload, self._key)
        self._check_status(endpoint, response, payload)
        endpoint.mark_healthy()
        return payload

    async def _connection_error(self, endpoint: _Endpoint, error: Exception) -> CaiError | RetryableError:
        if endpoint.last_success_body is None:
            reason = await permanent_failure(error, endpoint.url)
            if reason is not None:
                return ServerRefused(self._redact(f"{endpoint.url}: {reason}"))
        endpoint.mark_failed()
        if isinstance(error, aiohttp.ClientConnectorError):
            return RetryableError("server not reachable", f"{endpoint.url}: {error}", unavailable=True)
        return RetryableError("connection lost", f"{endpoint.url}: {error!r}"[:_EXCERPT_CHARS])

    def _check_status(self, endpoint: _Endpoint, response: aiohttp.ClientResponse, payload: bytes) -> None:
        status = response.status
        if status < 300:
            return
        message = f"{endpoint.url}: HTTP {status}: {_excerpt(payload)}"
        if status < 400:
            target = self._redact(response.headers.get("Location", "nowhere"))[:_EXCERPT_CHARS]
            message = f"{endpoint.url}: HTTP {status}: redirects to {target}; if that is the server, use its address"
        if status == 429:
            self.semaphore.record_overload()
        elif status in _UNAVAILABLE:
            # It responds at once, so it would look like the least busy endpoint.
            endpoint.mark_failed()
        if status in _RETRYABLE or status >= 500:
            retry_after = _retry_after(response.headers.get("Retry-After"))
            unavailable = status in _UNAVAILABLE
            raise RetryableError(f"HTTP {status}", message, retry_after=retry_after, unavailable=unavailable)
        raise _RejectedError(endpoint, status, message)

    def _choose(self, affinity: int) -> _Endpoint:
        if len(self._endpoints) == 1:
            return self._endpoints[0]
        now = time.monotonic()
        available = [endpoint for endpoint in self._endpoints if endpoint.retry_at <= now]
        if not available:
            return min(self._endpoints, key=lambda endpoint: endpoint.retry_at)
        least = min(available, key=lambda endpoint: endpoint.in_flight)
        home = self._endpoints[affinity % len(self._endpoints)]
        limit = least.in_flight + self.semaphore.max_limit // _AFFINITY_SHARE
        return home if home.retry_at <= now and home.in_flight <= limit else least

    def _open_session(self) -> aiohttp.ClientSession:
        # Created by the first request: a session belongs to the running event loop.
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept-Encoding": ACCEPTED_ENCODINGS}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                connector=CleanConnector(),
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
            self._session = None


def _decode(endpoint: _Endpoint, payload: bytes) -> Any:
    try:
        if has_too_many_values(payload):
            raise RetryableError("malformed answer", f"{endpoint.url}: more than {MAX_VALUES:,} values")
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise RetryableError("malformed answer", f"{endpoint.url}: {error}: {_excerpt(payload)}") from None


def _excerpt(payload: bytes) -> str:
    return payload[: 4 * _EXCERPT_CHARS].decode("utf-8", "replace")[:_EXCERPT_CHARS].strip()


def _retry_after(value: str | None) -> float | None:
    """Convert a Retry-After header, in seconds or as a date, to seconds."""
    if not value:
        return None
    try:
        seconds = float(value)
        return seconds if seconds >= 0.0 else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
