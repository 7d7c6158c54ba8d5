# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Counts of the rows that a command reads, writes and skips."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.errors import CaiError

_MAX_COLUMNS = 20
"""The most columns that a message lists."""


@dataclass
class RowCounts:
    """Row counts of one command; always ``rows_in == written + sum(skipped.values())``.

    Attributes:
        skipped: rows by reason, a short phrase for the reader of the summary.
        noted: written rows by a change made to them ("template tokens escaped").
        made: output rows, if one input row can give several.
        unused: input columns that no output has.
        stopped_at: the limit at which reading stopped before the end of the input.
    """

    rows_in: int = 0
    written: int = 0
    skipped: Counter[str] = field(default_factory=Counter[str])
    noted: Counter[str] = field(default_factory=Counter[str])
    made: int = 0
    unused: set[str] = field(default_factory=set[str])
    stopped_at: int | None = None

    def skip(self, reason: str, rows: int = 1) -> None:
        """Count rows that are not written."""
        self.skipped[reason] += rows

    def note(self, what: str, rows: int = 1) -> None:
        """Count rows that are written with a change."""
        self.noted[what] += rows

    def check(self) -> None:
        """Raises CaiError if a row is neither written nor skipped."""
        if self.rows_in != self.written + sum(self.skipped.values()):
            raise CaiError(f"rows are unaccounted for; this is a bug, please report it: {self}")

    def require_written(self, source: object) -> None:
        """Raises CaiError, with the counts, if no row is written."""
        if not self.written:
            raise CaiError(f"{source}: nothing is left to write: {self}")

    def to_dict(self) -> dict[str, Any]:
        """The counts for a manifest, sorted by reason."""
        return {
            "rows_in": self.rows_in,
            "written": self.written,
            "left_out": dict(sorted(self.skipped.items())),
            "noted": dict(sorted(self.noted.items())),
            **({"made": self.made} if self.made not in (0, self.written) else {}),
            **({"unused_columns": sorted(self.unused)} if self.unused else {}),
            **({"stopped_at": self.stopped_at} if self.stopped_at else {}),
        }

    def __str__(self) -> str:
        reasons, notes = (
            ", ".join(f"{count} {what}" for what, count in sorted(counter.items()))
            for counter in (self.skipped, self.noted)
        )
        return (
            f"{self.rows_in} rows in = {self.written} written + {sum(self.skipped.values())} skipped"
            + (f" ({reasons})" if reasons else "")
            + (f"; of the written: {notes}" if notes else "")
            + (f"; {self.made} rows out" if self.made not in (0, self.written) else "")
            + (f"; more rows were not read, the limit is {self.stopped_at}" if self.stopped_at else "")
            + self.unused_text
        )

    @property
    def unused_text(self) -> str:
        """The unused columns as the end of a sentence, "" if there are none."""
        names = sorted(self.unused)
        more = f" and {len(names) - _MAX_COLUMNS} more" if len(names) > _MAX_COLUMNS else ""
        return f"; unused columns: {', '.join(name[:40] for name in names[:_MAX_COLUMNS])}{more}" if names else ""
