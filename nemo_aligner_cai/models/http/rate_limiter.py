# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Limits on requests and tokens per minute."""

from aiolimiter import AsyncLimiter

_BURST_SECONDS = 5.0
"""The tokens of this many seconds may be spent at once: a burst of a whole minute would count twice in its window."""
_BYTES_PER_TOKEN = 3.0
"""Bytes of request JSON per token. Low for English, so that token counts are over- rather than underestimated."""


class RateLimiter:
    """Delays requests until the service's rate limits allow them.

    Requests are evenly spaced, since most hosted services answer a burst with 429. A request's tokens are estimated
    by the length of its prompt plus the mean length of the replies so far.
    """

    def __init__(self, *, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        """None means no limit."""
        self._requests = AsyncLimiter(1, 60.0 / requests_per_minute) if requests_per_minute else None
        rate = tokens_per_minute and tokens_per_minute * _BURST_SECONDS / 60.0
        self._tokens = AsyncLimiter(rate, _BURST_SECONDS) if rate else None
        self._reply_tokens, self._replies = 0, 0

    async def acquire(self, content: bytes) -> None:
        """Wait until a request with this body may be sent."""
        if self._requests is not None:
            await self._requests.acquire()
        if self._tokens is not None:
            remaining = len(content) / _BYTES_PER_TOKEN + self._reply_tokens / max(1, self._replies)
            while remaining > 0:
                # A request larger than the burst waits for several of them.
                await self._tokens.acquire(min(remaining, self._tokens.max_rate))
                remaining -= self._tokens.max_rate

    def record_reply(self, tokens: int) -> None:
        """Count the tokens of a reply."""
        self._reply_tokens += tokens
        self._replies += 1
