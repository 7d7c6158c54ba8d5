# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A service's quota: so many requests and so many tokens a minute."""

from aiolimiter import AsyncLimiter

_SECONDS = 5.0
"""Tokens of so many seconds may be spent at once: a burst of a whole minute's would count twice in its window."""
_BYTES_PER_TOKEN = 3.0
"""Of a request's JSON. Low for English, so that rather too many tokens are counted than too few."""


class RateLimiter:
    """Holds requests back until the service's quota has room for them.

    Requests are evenly spaced: a burst of a minute's quota would be answered with 429 by most hosted services. Tokens
    are those of the prompt, by its length, and those that were written on average so far.
    """

    def __init__(self, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        """None is no limit."""
        self._requests = AsyncLimiter(1, 60.0 / requests_per_minute) if requests_per_minute else None
        self._tokens = AsyncLimiter(tokens_per_minute * _SECONDS / 60.0, _SECONDS) if tokens_per_minute else None
        self._written, self._replies = 0, 0

    async def take(self, content: bytes) -> None:
        """Wait until a request with this body may be sent."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            rest = len(content) / _BYTES_PER_TOKEN + self._written / max(1, self._replies)
            while rest > 0:
                # A request that is larger than the burst waits for several of them.
                await self._tokens.acquire(min(rest, self._tokens.max_rate))
                rest -= self._tokens.max_rate

    def wrote(self, tokens: int) -> None:
        """A reply had so many tokens."""
        self._written += tokens
        self._replies += 1
