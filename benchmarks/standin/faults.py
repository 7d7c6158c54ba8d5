# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Faults that a seed, a request's content and the number of the attempt decide: the same ones in every run.

A content whose first attempt is hit may be answered at the second, as with a real server that has a bad moment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.standin.replies import uniform

STATUSES = {"429": 429, "500": 500, "503": 503}
KINDS = (*STATUSES, "reset", "hang", "slow", "malformed", "truncated", "empty", "utf8", "length")
"""What can go wrong: a status, a connection reset, no answer at all, an answer that comes late, a body that is no
JSON, half a body, an empty text, bytes that are not UTF-8, and a reply cut off at half its length (finish_reason
"length")."""


@dataclass(frozen=True)
class Faults:
    """`rates` maps kinds to the share of attempts that they hit; together they are at most 1.

    A server that starts again counts the attempts from 1. With another `seed`, it does not repeat its faults.
    """

    rates: Mapping[str, float] = field(default_factory=dict[str, float])
    seed: int = 0

    @classmethod
    def parse(cls, settings: Iterable[str], seed: int = 0) -> "Faults":
        """From texts such as ``"hang=0.01"``; raises ValueError for what is none."""
        rates: dict[str, float] = {}
        for setting in settings:
            kind, _, rate = setting.partition("=")
            if kind not in KINDS:
                raise ValueError(f"--fault {setting}: the kinds are {', '.join(KINDS)}")
            rates[kind] = float(rate)
        if any(rate < 0 for rate in rates.values()) or sum(rates.values()) > 1:
            raise ValueError(f"the shares of faults must be positive and at most 1 together: {rates}")
        return cls(rates, seed)

    def of(self, digest: bytes, attempt: int) -> str | None:
        """What hits the attempt (1 is the first) at answering a content, None where nothing does."""
        if not self.rates:
            return None
        drawn = uniform(digest, b"fault %d %d" % (self.seed, attempt))
        for kind, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                return kind
        return None
