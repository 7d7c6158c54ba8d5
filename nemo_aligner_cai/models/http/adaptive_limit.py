# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The number of concurrent requests that one server accepts, learned from its 429 responses."""

import time

_DECREASE_INTERVAL = 1.0
"""Minimum seconds between two decreases: one overload produces many 429 responses and must count once."""


class AdaptiveLimit:
    """Additive increase, multiplicative decrease, so that a server with an unknown quota is fully used."""

    def __init__(self, max_limit: int) -> None:
        """`max_limit` is the initial and the highest limit, at least 1."""
        self.max_limit = max_limit
        self.value = max_limit
        """The current limit in requests, from 1 to `max_limit`."""
        self._exact = float(max_limit)
        self._decreased_at = float("-inf")

    def record_overload(self, in_flight: int) -> None:
        """Halve the limit, or the number of requests in flight if that is lower."""
        now = time.monotonic()
        if now - self._decreased_at >= _DECREASE_INTERVAL:
            self._decreased_at = now
            self._exact = max(1.0, min(self._exact, in_flight) / 2)
            self.value = int(self._exact)

    def record_success(self) -> None:
        """Raise the limit by 1 per `value` successes."""
        if self._exact < self.max_limit:
            self._exact = min(float(self.max_limit), self._exact + 1 / self._exact)
            self.value = int(self._exact)
