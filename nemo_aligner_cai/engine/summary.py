# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a generation run did, for the manifest and for people."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import RowCounts


@dataclass
class Summary:
    """Counts of one run.

    Attributes:
        counts: prompts in, records written, records left out by reason.
        calls: calls answered by a server in this run.
        reused: calls found in the journal.
        failed: calls that failed for good.
        faults: records left out because something went wrong, not because of what was said.
        first_fault: details of the first of them in the prompts' order, such as a server's words; None without any.
        retries: attempts after the first.
        prompt_tokens: tokens read by the servers, where they say so.
        completion_tokens: tokens written.
        cost: of these tokens, None where no prices are known.
        seconds: duration.
        facts: what else the stage counts.
    """

    counts: RowCounts = field(default_factory=RowCounts)
    calls: int = 0
    reused: int = 0
    failed: int = 0
    faults: int = 0
    first_fault: str | None = None
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    seconds: float = 0.0
    facts: Counter[str] = field(default_factory=Counter[str])

    def rate(self, part: str, whole: str) -> float | None:
        """One count of `facts` as a share of another; None where the other is 0."""
        return self.facts[part] / self.facts[whole] if self.facts[whole] else None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "balance": self.counts.to_dict(),
            "calls": self.calls,
            "reused": self.reused,
            "failed": self.failed,
            "faults": self.faults,
            "retries": self.retries,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
            "facts": dict(sorted(self.facts.items())),
        }

    def check(self, max_dropped: float) -> None:
        """Call it when everything is saved.

        Raises:
            CaiError: nothing was written, or more than `max_dropped` (a share of the prompts) was left out by faults.
        """
        if self.counts.written == 0:
            raise CaiError(f"no record was written: {self.counts}{self._example()}")
        if self.faults > Fraction(str(max_dropped)) * self.counts.rows_in:
            raise CaiError(
                f"{self.faults} of {self.counts.rows_in} records were left out because of faults, more than "
                f"--max-dropped {max_dropped:g} allows: {self.counts}. All others are saved; the same command with "
                f"--resume, and without --overwrite, tries these again{self._example()}"
            )

    def _example(self) -> str:
        return f"; the first fault: {self.first_fault}" if self.first_fault else ""

    def rows(self) -> Iterator[tuple[str, str]]:
        """For people: names and what they come to."""
        yield "rows", str(self.counts)
        yield "calls", f"{self.calls}, {self.reused} reused from the journal, {self.failed} failed"
        yield "retries", str(self.retries)
        if self.prompt_tokens or self.completion_tokens:
            rate = self.completion_tokens / max(1e-6, self.seconds)
            yield "tokens", f"{self.prompt_tokens} read, {self.completion_tokens} written, {rate:.0f}/s"
        if self.cost is not None:
            yield "cost", f"{self.cost:.2f}"
        yield "seconds", f"{self.seconds:.1f}"
        for name, count in sorted(self.facts.items()):
            yield name, str(count)
