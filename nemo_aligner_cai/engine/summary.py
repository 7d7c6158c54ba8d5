# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The summary of a run, for the manifest and the terminal."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import RowCounts

OTHER_SHARDS = "prompts of other shards"
"""The reason under which they are counted."""


@dataclass
class Summary:
    """Counts of one run.

    Attributes:
        counts: prompts in, records written, records dropped by reason.
        in_shard: in a run of one shard, the number of its prompts; None in other runs.
        calls: calls answered by a server in this run.
        reused: calls found in the journal.
        failed: calls that failed after all retries.
        faults: records dropped because of an error, not because of a reply's content.
        first_fault: details of the first fault in input order, such as a server's message.
        retries: attempts after the first.
        prompt_tokens: tokens read, as reported by the servers.
        completion_tokens: tokens written.
        cost: cost of these tokens; None without prices.
        seconds: duration.
        facts: the stage's own counts.
    """

    counts: RowCounts = field(default_factory=RowCounts)
    in_shard: int | None = None
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of a manifest."""
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

    def add_read(self, read: RowCounts) -> None:
        """Add the row counts of reading the prompts: from the rows of the file to the written records."""
        if self.in_shard is not None and read.written > self.in_shard:
            self.counts.skip(OTHER_SHARDS, read.written - self.in_shard)
        self.counts.rows_in = read.rows_in
        self.counts.skipped.update(read.skipped)
        self.counts.noted.update(read.noted)

    def check(self, max_dropped: float) -> None:
        """Check that the run was good enough. Call it after saving all results.

        Raises:
            CaiError: nothing was written, or faults dropped more than `max_dropped` (a share of the prompts).
        """
        # A shard may have no prompt, or none that gives a row; the merge decides about the whole.
        if self.counts.written == 0 and self.in_shard is None:
            raise CaiError(f"no record was written: {self.counts}{self._example()}")
        self.check_faults(max_dropped)

    def check_faults(self, max_dropped: float) -> None:
        """Raise CaiError if faults dropped more than `max_dropped`, a share of the prompts."""
        rows = self.counts.rows_in if self.in_shard is None else self.in_shard
        if self.faults > Fraction(str(max_dropped)) * rows:
            raise CaiError(
                f"{self.faults} of {rows} records were dropped because of faults, more than "
                f"--max-dropped {max_dropped:g} allows: {self.counts}. All others are saved; run the same command "
                "with --resume, and without --overwrite and --no-calls, to retry the dropped records"
                f"{self._example()}"
            )

    def _example(self) -> str:
        return f"; the first fault: {self.first_fault}" if self.first_fault else ""

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield names and values for the terminal."""
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
