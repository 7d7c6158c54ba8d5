# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""HTTP to model servers: endpoints, limits, time-outs and the one layer of retries.

aiohttp and orjson because half of a fast client's cost is HTTP and JSON: the openai SDK spends 7 ms of CPU on a
few-shot chat call, this stays under 0.5 ms.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
import orjson
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.stop import stop_base

from nemo_aligner_cai.models.base import CallFailed, ClientStats, ServerRefused
from nemo_aligner_cai.models.gate import Gate

T = TypeVar("T")

_RETRIABLE = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({401, 402, 403, 404, 405})
_AWAY = frozenset({429, 502, 503, 504})
"""Answers of a server that is there but cannot serve now: waited out like one that cannot be reached."""


@dataclass(frozen=True)
class Patience:
    """How long a request is tried.

    Attributes:
        timeout: seconds for one attempt.
        attempts: attempts when the server answers wrongly (5xx, 429, malformed, cut off) or not in time.
        outage: seconds for which a server that cannot be reached, or is overloaded, is waited for.
        first_wait: seconds before the second attempt; doubled each time, with full jitter.
        longest_wait: seconds at most between two attempts, unless the server's Retry-After asks for more.
    """

    timeout: float = 600.0
    attempts: int = 6
    outage: float = 600.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


class Retriable(Exception):
    """An attempt failed in a way that another attempt may mend."""

    def __init__(self, reason: str, detail: str = "", *, retry_after: float | None = None, away: bool = False) -> None:
        """`away`: the server cannot serve at the moment, whatever it is asked."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.retry_after, self.away = reason, detail, retry_after, away


@dataclass
class _Endpoint:
    url: str
    outstanding: int = 0
    failures: int = 0
    back_at: float = field(default=0.0)

    def failed(self) -> None:
        """Not asked again for a while: 1 s, 2 s, 4 s, up to 30 s."""
        self.failures += 1
        self.back_at = time.monotonic() + min(30.0, 2.0 ** (self.failures - 1))

    def answered(self) -> None:
        self.failures, self.back_at = 0, 0.0


class _PatienceEnds(stop_base):
    """Tells tenacity to stop: after so many wrong answers, or when the server has been away for too long.

    The two are counted apart, so that an outage does not use up the attempts for what comes after it.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._wrong = 0
        self._away_since: float | None = None

    def __call__(self, retry_state: RetryCallState) -> bool:
        fault = retry_state.outcome.exception() if retry_state.outcome else None
        now = time.monotonic()
        if isinstance(fault, Retriable) and fault.away:
            self._away_since = now if self._away_since is None else self._away_since
            return now - self._away_since > self._patience.outage
        self._away_since = None
        self._wrong += 1
        return self._wrong >= self._patience.attempts


class Transport:
    """Sends JSON to one of several equal endpoints until an answer is good."""

    def __init__(
        self,
        urls: tuple[str, ...],
        *,
        method: str,
        concurrency: int,
        patience: Patience,
        requests_per_minute: float | None = None,
        key: str | None = None,
    ) -> None:
        """Args as their names say; `key` is sent as a bearer token and appears nowhere else."""
        self._endpoints = [_Endpoint(url) for url in urls]
        self._method = method
        self._patience = patience
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        # Evenly spaced: a burst of a minute's quota would be answered with 429 by most hosted services.
        self._rate = AsyncLimiter(1, 60.0 / requests_per_minute) if requests_per_minute else None
        self.gate = Gate(concurrency)
        self.stats = ClientStats()

    async def send(self, body: Mapping[str, Any], read: Callable[[Any], T], *, priority: int = 0) -> T:
        """Send `body` and return ``read(answer)``.

        Args:
            body: the JSON object to send.
            read: makes something of the decoded answer; raises Retriable when it is not what was asked for.
            priority: lower goes first among those that wait.

        Raises:
            CallFailed: the patience is at its end.
            ServerRefused: the server would refuse every request.
        """
        content = self._encode(body)
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Retriable),
            wait=self._wait,
            stop=_PatienceEnds(self._patience),
            reraise=True,
        )
        async with self.gate.slot(priority):
            try:
                async for attempt in attempts:
                    with attempt:
                        self.stats.retries += attempt.retry_state.attempt_number > 1
                        return await self._attempt(content, read)
            except Retriable as fault:
                raise CallFailed(fault.reason, self._redact(fault.detail)) from None
        raise AssertionError("tenacity ended without a result")  # pragma: no cover

    def _encode(self, body: Mapping[str, Any]) -> bytes:
        try:
            return orjson.dumps(body)
        except TypeError as error:
            raise CallFailed("the text cannot be sent (lone surrogate?)", str(error)) from None

    async def _attempt(self, content: bytes, read: Callable[[Any], T]) -> T:
        if self._rate is not None:
            await self._rate.acquire()
        endpoint = self._choose()
        endpoint.outstanding += 1
        self.stats.in_flight += 1
        try:
            answer = await self._exchange(endpoint, content)
            result = read(answer)
        finally:
            endpoint.outstanding -= 1
            self.stats.in_flight -= 1
        self.gate.succeeded()
        return result

    async def _exchange(self, endpoint: _Endpoint, content: bytes) -> Any:
        try:
            async with self._open_session().request(self._method, endpoint.url, data=content) as response:
                payload = await response.read()
        except asyncio.TimeoutError:
            endpoint.failed()
            raise Retriable("no answer in time", f"{endpoint.url}: {self._patience.timeout:g} s") from None
        except aiohttp.ClientConnectorError as error:
            endpoint.failed()
            raise Retriable("server not reachable", f"{endpoint.url}: {error}", away=True) from None
        except (aiohttp.ClientError, OSError) as error:
            endpoint.failed()
            raise Retriable("connection lost", f"{endpoint.url}: {error!r}") from None
        endpoint.answered()
        self._check_status(response, payload)
        try:
            return orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise Retriable("malformed answer", f"{endpoint.url}: {error}") from None

    def _check_status(self, response: aiohttp.ClientResponse, payload: bytes) -> None:
        status = response.status
        if status < 400:
            return
        said = f"{response.url}: HTTP {status}: {payload[:300].decode('utf-8', 'replace').strip()}"
        if status in _REFUSED:
            raise ServerRefused(self._redact(said))
        if status == 429:
            self.gate.overloaded()
        if status in _RETRIABLE or status >= 500:
            wait = _retry_after(response.headers.get("Retry-After"))
            raise Retriable(f"HTTP {status}", said, retry_after=wait, away=status in _AWAY)
        raise CallFailed(f"HTTP {status}", self._redact(said))

    def _choose(self) -> _Endpoint:
        now = time.monotonic()
        alive = [endpoint for endpoint in self._endpoints if endpoint.back_at <= now]
        if alive:
            return min(alive, key=lambda endpoint: endpoint.outstanding)
        return min(self._endpoints, key=lambda endpoint: endpoint.back_at)

    def _open_session(self) -> aiohttp.ClientSession:
        # Made at the first request: a session belongs to the event loop that is running then.
        if self._session is None:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self._patience.timeout),
                headers=headers,
            )
        return self._session

    def _wait(self, state: RetryCallState) -> float:
        fault = state.outcome.exception() if state.outcome else None
        bound = min(self._patience.longest_wait, self._patience.first_wait * 2.0 ** (state.attempt_number - 1))
        # Jitter keeps clients apart; it has no influence on any result, so it needs no seed.
        wait = random.uniform(bound / 2, bound)
        if isinstance(fault, Retriable) and fault.retry_after is not None:
            return max(wait, fault.retry_after)
        return wait

    def _redact(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait from a Retry-After header, which holds seconds or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
