# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How long a request is tried: what another attempt may mend, how many there are, and the waits between them."""

import random
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class RetryPolicy:
    """How long a request is tried.

    Attributes:
        timeout: seconds for one attempt.
        attempts: attempts when the server answers wrongly (5xx, malformed, cut off) or not in time.
        outage: seconds for which a server that cannot be reached, or is overloaded, is waited for.
        first_wait: seconds before the second attempt; doubled each time, with jitter.
        longest_wait: seconds at most between two attempts, unless the server's Retry-After asks for more.
    """

    timeout: float = 600.0
    attempts: int = 6
    outage: float = 600.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


class RetryableError(Exception):
    """An attempt failed in a way that another attempt may mend."""

    def __init__(self, reason: str, detail: str = "", *, retry_after: float | None = None, away: bool = False) -> None:
        """`away`: the server cannot serve at the moment, whatever it is asked."""
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.retry_after, self.away = reason, detail, retry_after, away


class RetryState:
    """One request's failed attempts. Wrong answers are counted apart from outages, which use up none of them.

    Written out, where tenacity would do: its loop costs 50 microseconds for each request, most of which never fail.
    """

    def __init__(self, patience: RetryPolicy) -> None:
        """None has failed yet. `away_since` is when the outage began that the last attempt ran into, if it did."""
        self._patience = patience
        self._failed = 0
        self._wrong = 0
        self.away_since: float | None = None

    def wait_after(self, fault: RetryableError) -> float | None:
        """Seconds to wait before the next attempt; None when the patience is at its end."""
        now = time.monotonic()
        self._failed += 1
        rest = self._patience.outage
        if fault.away:
            self.away_since = now if self.away_since is None else self.away_since
            rest -= now - self.away_since
            if rest < 0:
                return None
        else:
            self.away_since = None
            self._wrong += 1
            if self._wrong >= self._patience.attempts:
                return None
        bound = min(self._patience.longest_wait, self._patience.first_wait * 2.0 ** (self._failed - 1))
        # Jitter keeps clients apart; it has no influence on any result, so it needs no seed. No server can ask for
        # more patience than there is.
        return max(random.uniform(bound / 2, bound), min(fault.retry_after or 0.0, rest))
