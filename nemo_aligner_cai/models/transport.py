# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""HTTP to model servers: endpoints, limits, time-outs and the one layer of retries.

aiohttp and orjson because half of a fast client's cost is HTTP and JSON: the openai SDK spends 7 ms of CPU on a
few-shot chat call, a whole run stays under 0.5 ms (``benchmarks/client_cpu.py``).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
import orjson
from yarl import URL

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files.json_items import MOST_VALUES, has_too_many_values
from nemo_aligner_cai.models.base import CallFailed, ClientStats, ServerRefused
from nemo_aligner_cai.models.exchange import (
    ACCEPTED_ENCODINGS,
    CleanConnector,
    hopeless,
    proxy_of,
    read_payload,
    redacted,
    spellings,
)
from nemo_aligner_cai.models.rate_limiter import RateLimiter
from nemo_aligner_cai.models.retry import RetryableError, RetryPolicy, RetryState
from nemo_aligner_cai.models.semaphore import AdaptiveSemaphore

T = TypeVar("T")

_log = logging.getLogger(__name__)
_RETRIABLE = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({*range(300, 400), 401, 402, 403, 404, 405, 407})
"""Answers that can begin at any time to be those to all requests: a revoked key, an empty account, a moved server."""
_AWAY = frozenset({429, 502, 503, 504})
"""Answers of a server that is there but cannot serve now: waited out like one that cannot be reached."""
_WORDS = 300
"""Characters of an answer that are shown."""
_UNEVEN = 8
"""An endpoint may have this share (one in so many) of all requests in flight more than the least busy one, where it
has the beginning of a prompt in its cache."""


@dataclass
class _Endpoint:
    url: URL
    proxy: URL | None = None
    outstanding: int = 0
    failures: int = 0
    back_at: float = 0.0
    served_since: float = float("-inf")
    """When the latest request was sent that was served."""
    served: bytes | None = None
    """The latest request that was served."""
    rejects_greetings: bool = False
    """A greeting was rejected where a request that had been served before was served again."""
    doubt: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the rejected request that finds out whether the server serves anything."""

    def failed(self) -> None:
        """Not asked again for a while: 1 s, 2 s, 4 s, up to 30 s."""
        self.failures += 1
        self.back_at = time.monotonic() + min(30.0, 2.0 ** (self.failures - 1))

    def answered(self) -> None:
        self.failures, self.back_at = 0, 0.0


class _Rejected(Exception):
    """The server rejects this request with a status that no other attempt would change.

    `said` is the address, the status and the server's words; `at` is the time of the answer.
    """

    def __init__(self, endpoint: _Endpoint, status: int, said: str) -> None:
        super().__init__(said)
        self.endpoint, self.status, self.said, self.at = endpoint, status, said, time.monotonic()


class Transport:
    """Sends JSON to one of several equal endpoints until an answer is good."""

    def __init__(
        self,
        urls: tuple[str, ...],
        *,
        method: str,
        concurrency: int,
        patience: RetryPolicy,
        quota: RateLimiter | None = None,
        key: str | None = None,
        longest_answer: int = 4 << 20,
    ) -> None:
        """Nothing is sent yet.

        Args:
            urls: equal endpoints.
            method: of the HTTP requests.
            concurrency: requests in flight at most.
            patience: time-outs and retries.
            quota: the service's, None where it has none.
            key: sent as a bearer token; appears nowhere else, not even where the server repeats it.
            longest_answer: bytes; what is longer would fill the memory.

        Raises:
            UsageError: the environment names a proxy for an address that cannot be used.
        """
        self._endpoints = [_Endpoint(URL(url), proxy_of(URL(url))) for url in urls]
        self._method = method
        self._patience = patience
        self._quota = quota
        self._key = key
        self._longest_answer = longest_answer
        self._session: aiohttp.ClientSession | None = None
        self._connector: CleanConnector | None = None
        self._is_caught = False
        self._turn = asyncio.Lock()
        self._served_at = float("-inf")
        self._is_away = False
        self.gate = AdaptiveSemaphore(concurrency)
        self.stats = ClientStats()

    async def send(
        self,
        body: Mapping[str, Any],
        read: Callable[[Any], T],
        *,
        harmless: Callable[[], Mapping[str, Any]],
        priority: int = 0,
        affinity: int = 0,
    ) -> T:
        """Send `body` and return ``read(answer)``.

        Args:
            body: the JSON object to send.
            read: makes something of the decoded answer; raises Retriable when it is not what was asked for.
            harmless: a body with the same settings and a content that no server objects to. It is sent after a
                request has been rejected, to tell whether the server rejects that request or every one.
            priority: lower goes first among those that wait.
            affinity: requests with equal numbers begin alike: they go to the same endpoint where it is not busier
                than others, so that its prefix cache serves them.

        Raises:
            CallFailed: the patience with this request is at its end, or the server rejects this request.
            ServerRefused: the server rejects every request, or was away for as long as it is waited for.
        """
        content = self._encode(body)
        await self.gate.enter(priority)
        try:
            try:
                return await self._persist(content, read, lambda: self._choose(affinity))
            except _Rejected as rejected:
                error = await self._blame(rejected, harmless)
            raise error
        finally:
            self.gate.leave()

    async def _persist(self, content: bytes, read: Callable[[Any], T], choose: Callable[[], _Endpoint]) -> T:
        """Attempt until an answer is good, or the patience is at its end."""
        tries: RetryState | None = None
        while True:
            error: CaiError | None = None
            wait = 0.0
            try:
                return await self._attempt(content, read, choose())
            except RetryableError as fault:
                tries = tries or RetryState(self._patience)
                next_wait = tries.wait_after(fault)
                if next_wait is None:
                    error = self._given_up(fault, tries)
                else:
                    wait = next_wait
                    self._tell(fault)
            if error is not None:
                # Not within the handler: the fault's traceback would keep the answer in memory.
                raise error
            self.stats.retries += 1
            await asyncio.sleep(wait)

    async def _blame(self, rejected: _Rejected, harmless: Callable[[], Mapping[str, Any]]) -> CaiError:
        """The error for a rejected request: its own, or the server's where that rejects a harmless request too.

        The decision depends on the server alone, not on how many requests were served before or at the same time. A
        key can be revoked at any time, so that only what was sent after the answer shows that it still serves; wrong
        settings were wrong from the beginning.
        """
        endpoint = rejected.endpoint
        since = rejected.at if rejected.status in _REFUSED else float("-inf")
        # A greeting can be rejected for itself too, by a filter of topics; what was served before can not.
        proven = endpoint.served if rejected.status in _REFUSED else None
        async with endpoint.doubt:
            if endpoint.served_since <= since:
                try:
                    if proven is None or not endpoint.rejects_greetings:
                        await self._check(endpoint, self._encode(harmless()), proven)
                    else:
                        await self._check(endpoint, proven, None)
                except _Rejected as again:
                    return ServerRefused(again.said, status=again.status)
                except CallFailed as failure:
                    return ServerRefused(f"{rejected.said}; nor is a harmless request served: {failure}")
        return CallFailed(f"HTTP {rejected.status}", rejected.said)

    async def _check(self, endpoint: _Endpoint, content: bytes, proven: bytes | None) -> None:
        """Raises _Rejected if an endpoint rejects a harmless request and one that it has served, if there is one."""
        try:
            await self._persist(content, lambda answer: None, lambda: endpoint)
        except _Rejected:
            if proven is None:
                raise
            await self._check(endpoint, proven, None)
            endpoint.rejects_greetings = True

    def _given_up(self, fault: RetryableError, tries: RetryState) -> CaiError:
        """What to raise: an outage that no other request got through ends the run, else each would wait in turn."""
        detail = self._redact(fault.detail)
        if fault.away and tries.away_since is not None and self._served_at < tries.away_since:
            return ServerRefused(f"{fault.reason}, for {self._patience.outage:g} s: {detail}")
        return CallFailed(fault.reason, detail)

    def _tell(self, fault: RetryableError) -> None:
        """Say once that an outage is waited for."""
        if fault.away and not self._is_away:
            self._is_away = True
            _log.warning(
                "%s; waiting for it, up to %g s",
                self._redact(f"{fault.reason}: {fault.detail}"),
                self._patience.outage,
            )

    def _encode(self, body: Mapping[str, Any]) -> bytes:
        try:
            return orjson.dumps(body)
        except TypeError as error:
            raise CallFailed("the text cannot be sent (lone surrogate?)", str(error)) from None

    async def _attempt(self, content: bytes, read: Callable[[Any], T], endpoint: _Endpoint) -> T:
        if self._quota is not None:
            await self._quota.take(content)
        endpoint.outstanding += 1
        self.stats.in_flight += 1
        sent = time.monotonic()
        try:
            payload = await self._exchange(endpoint, content)
        finally:
            endpoint.outstanding -= 1
            self.stats.in_flight -= 1
        answer = _decoded(endpoint, payload)
        endpoint.served_since = max(endpoint.served_since, sent)
        endpoint.served = content
        self._served_at, self._is_away = time.monotonic(), False
        try:
            result = read(answer)
        except RetryableError as fault:
            raise RetryableError(fault.reason, fault.detail or f"{endpoint.url}: {_words(payload)}") from None
        self.gate.succeeded()
        return result

    async def _exchange(self, endpoint: _Endpoint, content: bytes) -> bytes:
        """The body of a good answer."""
        try:
            async with self._open_session().request(
                self._method, endpoint.url, data=content, proxy=endpoint.proxy, allow_redirects=False
            ) as response:
                payload = await read_payload(response, limit=self._longest_answer, turn=self._turn)
        except asyncio.TimeoutError:
            endpoint.failed()
            raise RetryableError("no answer in time", f"{endpoint.url}: {self._patience.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise await self._lost(endpoint, error) from None
        self._note_caught(endpoint)
        payload = redacted(payload, self._key)
        self._check_status(endpoint, response, payload)
        endpoint.answered()
        return payload

    async def _lost(self, endpoint: _Endpoint, error: Exception) -> CaiError | RetryableError:
        """What to raise for an exchange that has failed."""
        if endpoint.served_since == float("-inf"):
            reason = await hopeless(error, endpoint.url)
            if reason is not None:
                return ServerRefused(self._redact(f"{endpoint.url}: {reason}"))
        endpoint.failed()
        if isinstance(error, aiohttp.ClientConnectorError):
            return RetryableError("server not reachable", f"{endpoint.url}: {error}", away=True)
        return RetryableError("connection lost", f"{endpoint.url}: {error!r}"[:_WORDS])

    def _note_caught(self, endpoint: _Endpoint) -> None:
        """Say once that a server sends answers that nobody has asked for."""
        if not self._is_caught and self._connector is not None and self._connector.caught:
            self._is_caught = True
            _log.warning(
                "%s: sends more answers than it is asked for; each request gets a connection of its own from now on",
                endpoint.url,
            )

    def _check_status(self, endpoint: _Endpoint, response: aiohttp.ClientResponse, payload: bytes) -> None:
        status = response.status
        if status < 300:
            return
        said = f"{endpoint.url}: HTTP {status}: {_words(payload)}"
        if status < 400:
            target = self._redact(response.headers.get("Location", "nowhere"))[:_WORDS]
            said = f"{endpoint.url}: HTTP {status}: redirects to {target}; if that is the server, give its address"
        if status == 429:
            self.gate.overloaded()
        elif status in _AWAY:
            # It answers at once, so it would look like the least busy one of several.
            endpoint.failed()
        if status in _RETRIABLE or status >= 500:
            wait = _retry_after(response.headers.get("Retry-After"))
            raise RetryableError(f"HTTP {status}", said, retry_after=wait, away=status in _AWAY)
        raise _Rejected(endpoint, status, said)

    def _choose(self, affinity: int) -> _Endpoint:
        if len(self._endpoints) == 1:
            return self._endpoints[0]
        now = time.monotonic()
        alive = [endpoint for endpoint in self._endpoints if endpoint.back_at <= now]
        if not alive:
            return min(self._endpoints, key=lambda endpoint: endpoint.back_at)
        least = min(alive, key=lambda endpoint: endpoint.outstanding)
        home = self._endpoints[affinity % len(self._endpoints)]
        room = least.outstanding + self.gate.most // _UNEVEN
        return home if home.back_at <= now and home.outstanding <= room else least

    def _open_session(self) -> aiohttp.ClientSession:
        # Made at the first request: a session belongs to the event loop that is running then.
        if self._session is None:
            headers = {"Content-Type": "application/json", "Accept-Encoding": ACCEPTED_ENCODINGS}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._connector = CleanConnector()
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._patience.timeout),
                headers=headers,
                auto_decompress=False,
            )
        return self._session

    def _redact(self, text: str) -> str:
        for spelled in spellings(self._key) if self._key else ():
            text = text.replace(spelled, "***")
        return text

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            if self._connector is not None:
                self._connector.drop_resting()
            await self._session.close()
            self._session = self._connector = None


def _decoded(endpoint: _Endpoint, payload: bytes) -> Any:
    try:
        if has_too_many_values(payload):
            raise RetryableError("malformed answer", f"{endpoint.url}: it has more than {MOST_VALUES:,} values")
        return orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise RetryableError("malformed answer", f"{endpoint.url}: {error}: {_words(payload)}") from None


def _words(payload: bytes) -> str:
    """The beginning of an answer, from which the API key is already gone."""
    return payload[: 4 * _WORDS].decode("utf-8", "replace")[:_WORDS].strip()


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait from a Retry-After header, which holds seconds or a date."""
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
