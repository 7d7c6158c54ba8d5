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
from nemo_aligner_cai.models.base import CallFailed, ClientStats, ServerRefused
from nemo_aligner_cai.models.gate import Gate
from nemo_aligner_cai.models.patience import Patience, Retriable, Tries
from nemo_aligner_cai.models.quota import Quota

T = TypeVar("T")

_log = logging.getLogger(__name__)
_RETRIABLE = frozenset({408, 409, 425, 429})
_REFUSED = frozenset({401, 402, 403, 404, 405})
_AWAY = frozenset({429, 502, 503, 504})
"""Answers of a server that is there but cannot serve now: waited out like one that cannot be reached."""
_REFUSALS = 10
"""Requests that are refused, one for itself, before any is served: then it is not the requests that are wrong."""
_MOST_BYTES = 64 << 20
"""Of an answer. What is longer is no answer to a chat, and would fill the memory."""
_UNEVEN = 8
"""An endpoint may have this share (one in so many) of all requests in flight more than the least busy one, where it
has the beginning of a prompt in its cache."""


@dataclass
class _Endpoint:
    url: URL
    outstanding: int = 0
    failures: int = 0
    back_at: float = field(default=0.0)

    def failed(self) -> None:
        """Not asked again for a while: 1 s, 2 s, 4 s, up to 30 s."""
        self.failures += 1
        self.back_at = time.monotonic() + min(30.0, 2.0 ** (self.failures - 1))

    def answered(self) -> None:
        self.failures, self.back_at = 0, 0.0


class Transport:
    """Sends JSON to one of several equal endpoints until an answer is good."""

    def __init__(
        self,
        urls: tuple[str, ...],
        *,
        method: str,
        concurrency: int,
        patience: Patience,
        quota: Quota | None = None,
        key: str | None = None,
    ) -> None:
        """Args as their names say; `key` is sent as a bearer token and appears nowhere else."""
        self._endpoints = [_Endpoint(URL(url)) for url in urls]
        self._method = method
        self._patience = patience
        self._quota = quota
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        self._served_at = float("-inf")
        self._refusals = 0
        self._is_away = False
        self.gate = Gate(concurrency)
        self.stats = ClientStats()

    async def send(
        self, body: Mapping[str, Any], read: Callable[[Any], T], *, priority: int = 0, affinity: int = 0
    ) -> T:
        """Send `body` and return ``read(answer)``.

        Args:
            body: the JSON object to send.
            read: makes something of the decoded answer; raises Retriable when it is not what was asked for.
            priority: lower goes first among those that wait.
            affinity: requests with equal numbers begin alike: they go to the same endpoint where it is not busier
                than others, so that its prefix cache serves them.

        Raises:
            CallFailed: the patience with this request is at its end.
            ServerRefused: the server would refuse every request, or was away for as long as it is waited for.
        """
        content = self._encode(body)
        tries: Tries | None = None
        await self.gate.enter(priority)
        try:
            while True:
                try:
                    return await self._attempt(content, read, affinity)
                except Retriable as fault:
                    tries = tries or Tries(self._patience)
                    wait = tries.wait_after(fault)
                    if wait is None:
                        raise self._given_up(fault, tries) from None
                    self._tell(fault)
                self.stats.retries += 1
                await asyncio.sleep(wait)
        finally:
            self.gate.leave()

    def _given_up(self, fault: Retriable, tries: Tries) -> CaiError:
        """What to raise: an outage that no other request got through ends the run, else each would wait in turn."""
        detail = self._redact(fault.detail)
        if fault.away and tries.away_since is not None and self._served_at < tries.away_since:
            return ServerRefused(f"{fault.reason}, for {self._patience.outage:g} s: {detail}")
        return CallFailed(fault.reason, detail)

    def _tell(self, fault: Retriable) -> None:
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

    async def _attempt(self, content: bytes, read: Callable[[Any], T], affinity: int) -> T:
        if self._quota is not None:
            await self._quota.take(content)
        endpoint = self._choose(affinity)
        endpoint.outstanding += 1
        self.stats.in_flight += 1
        try:
            answer = await self._exchange(endpoint, content)
            result = read(answer)
        finally:
            endpoint.outstanding -= 1
            self.stats.in_flight -= 1
        self._served_at, self._is_away = time.monotonic(), False
        self.gate.succeeded()
        return result

    async def _exchange(self, endpoint: _Endpoint, content: bytes) -> Any:
        try:
            async with self._open_session().request(self._method, endpoint.url, data=content) as response:
                payload = await _payload(response)
        except asyncio.TimeoutError:
            endpoint.failed()
            raise Retriable("no answer in time", f"{endpoint.url}: {self._patience.timeout:g} s") from None
        except aiohttp.ClientConnectorError as error:
            endpoint.failed()
            raise Retriable("server not reachable", f"{endpoint.url}: {error}", away=True) from None
        except (aiohttp.ClientError, OSError) as error:
            endpoint.failed()
            raise Retriable("connection lost", f"{endpoint.url}: {error!r}") from None
        self._check_status(endpoint, response, payload)
        endpoint.answered()
        try:
            return orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise Retriable("malformed answer", f"{endpoint.url}: {error}") from None

    def _check_status(self, endpoint: _Endpoint, response: aiohttp.ClientResponse, payload: bytes) -> None:
        status = response.status
        if status < 400:
            return
        words = self._redact(payload.decode("utf-8", "replace"))[:300].strip()
        said = f"{endpoint.url}: HTTP {status}: {words}"
        if status in _REFUSED:
            raise ServerRefused(said)
        if status == 429:
            self.gate.overloaded()
        elif status in _AWAY:
            # It answers at once, so it would look like the least busy one of several.
            endpoint.failed()
        if status in _RETRIABLE or status >= 500:
            wait = _retry_after(response.headers.get("Retry-After"))
            raise Retriable(f"HTTP {status}", said, retry_after=wait, away=status in _AWAY)
        self._refusals += 1
        if self._refusals >= _REFUSALS and self._served_at == float("-inf"):
            raise ServerRefused(f"none of {self._refusals} requests was served: {said}")
        raise CallFailed(f"HTTP {status}", said)

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
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=self._patience.timeout),
                headers=headers,
            )
        return self._session

    def _redact(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _payload(response: aiohttp.ClientResponse) -> bytes:
    length = response.content_length
    if length is not None and length <= _MOST_BYTES:
        return await response.read()
    payload = bytearray()
    async for chunk in response.content.iter_any():
        payload += chunk
        if len(payload) > _MOST_BYTES:
            raise Retriable("malformed answer", f"{response.url.host}: more than {_MOST_BYTES >> 20} MiB")
    return bytes(payload)


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
