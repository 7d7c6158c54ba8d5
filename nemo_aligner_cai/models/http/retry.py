# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Retries: which errors are retryable, how often and how long a request is retried."""

import random
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """Limits on the retries of one request.

    Attributes:
        timeout: seconds for one attempt.
        attempts: maximum number of attempts that fail with an error (5xx, malformed or incomplete response) or a
            timeout.
        max_outage: seconds to wait for a server that is unreachable or overloaded.
        initial_wait: seconds before the second attempt. Each further wait is twice as long, with jitter.
        max_wait: maximum seconds between two attempts, unless the server's Retry-After asks for more.
    """

    timeout: float = 600.0
    attempts: int = 6
    max_outage: float = 600.0
    initial_wait: float = 0.5
    max_wait: float = 30.0


class RetryableError(Exception):
    """An attempt failed with an error that another attempt may not have."""

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        retry_after: float | None = None,
        unavailable: bool = False,
        cost: float = 1.0,
    ) -> None:
        """`unavailable`: the server cannot serve any request at the moment. `cost`: attempts that it counts for."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.retry_after, self.unavailable = reason, detail, retry_after, unavailable
        self.cost = cost


class RetryState:
    """The failed attempts of one request. Outages do not count as attempts.

    Not tenacity, because its loop costs 50 microseconds for each request, and most requests never fail.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        """`outage_started` is the start time of the current outage, or None."""
        self._policy = policy
        self._failures = 0
        self._errors = 0.0
        self.outage_started: float | None = None

    def wait_after(self, error: RetryableError) -> float | None:
        """Record a failed attempt. Returns the seconds before the next one, or None if there is none left."""
        now = time.monotonic()
        self._failures += 1
        remaining = self._policy.max_outage
        if error.unavailable:
            self.outage_started = now if self.outage_started is None else self.outage_started
            remaining -= now - self.outage_started
            if remaining < 0:
                return None
        else:
            self.outage_started = None
            self._errors += error.cost
            if self._errors >= self._policy.attempts:
                return None
        bound = min(self._policy.max_wait, self._policy.initial_wait * 2.0 ** (self._failures - 1))
        # The jitter needs no seed: it does not affect results. Retry-After cannot exceed the remaining outage time.
        return max(random.uniform(bound / 2, bound), min(error.retry_after or 0.0, remaining))
