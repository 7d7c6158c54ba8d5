# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A transport's view of one endpoint, and the errors that its responses mean."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from nemo_aligner_cai.models.base import ServerRefused
from nemo_aligner_cai.models.http.endpoint_pool import Endpoint
from nemo_aligner_cai.models.http.retry import RetryableError
from nemo_aligner_cai.models.responses import EXCERPT_CHARS, excerpt, retry_after

_RETRYABLE = frozenset({408, 409, 425, 429})
SERVER_WIDE = frozenset({*range(300, 400), 401, 402, 403, 404, 405, 407})
"""Statuses that may start to apply to all requests at any time: a revoked key, an empty account, a moved server."""
_UNAVAILABLE = frozenset({429, 502, 503, 504})
"""Statuses of a server that is up but cannot serve now; they are handled like an unreachable server."""


@dataclass
class Route:
    """An endpoint with a transport's path, and what is known about the requests to it."""

    endpoint: Endpoint
    url: URL
    proxy: URL | None
    last_success_sent_at: float = float("-inf")
    last_success_body: bytes | None = None
    rejects_probe: bool = False
    """The probe was rejected while an earlier successful request succeeded again."""
    probe_lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class RejectedError(Exception):
    """The server rejected this request with a status that a retry would not change."""

    def __init__(self, route: Route, status: int, message: str) -> None:
        super().__init__(message)
        self.route, self.status, self.message, self.received_at = route, status, message, time.monotonic()


class UnusableEndpointError(Exception):
    """No request can reach this endpoint: its host is unknown, it does not speak the protocol, ..."""

    def __init__(self, route: Route, refusal: ServerRefused) -> None:
        super().__init__(str(refusal))
        self.route, self.refusal = route, refusal


def raise_for_status(
    route: Route, response: aiohttp.ClientResponse, payload: bytes, redact: Callable[[str], str]
) -> None:
    """Raise the error of a response's status, if it is one.

    Args:
        route: its origin.
        response: the response.
        payload: its body, without the API key.
        redact: removes the API key from the Location header.

    Raises:
        RetryableError: another attempt may succeed.
        RejectedError: another attempt would not.
    """
    status = response.status
    if status < 300:
        return
    message = f"{route.url}: HTTP {status}: {excerpt(payload)}"
    if status < 400:
        target = redact(response.headers.get("Location", "nowhere"))[:EXCERPT_CHARS]
        message = f"{route.url}: HTTP {status}: redirects to {target}; if that is the server, use its address"
    if status in _RETRYABLE or status >= 500:
        wait = retry_after(response.headers.get("Retry-After"))
        raise RetryableError(f"HTTP {status}", message, retry_after=wait, unavailable=status in _UNAVAILABLE)
    raise RejectedError(route, status, message)
