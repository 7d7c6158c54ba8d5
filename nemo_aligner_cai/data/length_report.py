# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Reports on the records of a file that a trainer uses, with or without the number of tokens of each."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from nemo_aligner_cai.files import RowCounts


class Measurement(NamedTuple):
    """A trainer's use of one record."""

    lengths: list[int] | None
    """The token ids of each of the record's texts. None if all certainly fit and were not counted."""
    merged: str | None
    """The reason why the trainer stops at the record, None if it does not."""

    def is_too_long(self, limit: int) -> bool:
        """True if a text has more than `limit` token ids."""
        return self.lengths is not None and max(self.lengths) > limit


@dataclass
class UseReport:
    """A trainer's use of a file. A record is one row, or the two rows of a comparison. Records count from 1."""

    limit: int
    """The maximum number of token ids of a text."""
    pairs: bool = False
    """True for the reward model, which replaces a pair that is too long by the second pair after it, and so on, and
    stops if the file ends before that."""
    records: int = 0
    too_long: list[int] = field(default_factory=list[int])
    """The records above the limit."""
    merged: dict[int, str] = field(default_factory=dict[int, str])
    """Record at which the trainer stops because of merged tokens -> the reason."""

    def add(self, measurement: Measurement) -> bool:
        """Count the next record. Returns True if the trainer uses all of it."""
        self.records += 1
        too_long = measurement.is_too_long(self.limit)
        if too_long:
            self.too_long.append(self.records)
        if measurement.merged is not None:
            self.merged[self.records] = measurement.merged
        return not too_long and measurement.merged is None

    @property
    def used(self) -> int:
        """The number of records that the trainer uses completely."""
        return self.records - len(self.skipped)

    @property
    def skipped(self) -> set[int]:
        """The records that must not be in the file."""
        return {*self.too_long, *self.merged}

    @property
    def counts(self) -> RowCounts:
        """The row counts of a file without the skipped records."""
        counts = RowCounts(rows_in=self.records, written=self.used)
        if self.too_long:
            counts.skip(f"longer than {self.limit} tokens", len(self.too_long))
        for number in sorted(self.skipped - set(self.too_long)):
            counts.skip(self.merged[number])
        return counts

    @property
    def stops(self) -> list[int]:
        """The records at which the trainer stops with an error."""
        if not self.pairs:
            return list(self.merged)
        too_long = set(self.too_long)
        # The reward model's replacements, from the end of the file backward.
        replaced: set[int] = set()
        for number in reversed(self.too_long):
            if number + 2 <= self.records and (number + 2 not in too_long or number + 2 in replaced):
                replaced.add(number)
        return [number for number in self.too_long if number not in replaced]

    def __str__(self) -> str:
        stops = self.stops
        why = "no pair follows that could replace it" if self.pairs else next(iter(self.merged.values()), "")
        first = f", the first is record {self.too_long[0]}" if self.too_long else ""
        return (
            f"{self.used} of {self.records} records are used: {len(self.too_long)} are longer than {self.limit} tokens"
            f"{first}{self._lengths_text()}"
        ) + (f"; the trainer stops at record {stops[0]}: {why}" if stops else "")

    def _lengths_text(self) -> str:
        return ""


@dataclass
class LengthReport(UseReport):
    """A trainer's use of a file, with the number of tokens of every record."""

    tokens: int = 0
    """The token ids of all texts."""
    lengths: Counter[int] = field(default_factory=Counter[int])
    """Token ids of the longest text -> number of records."""

    def add(self, measurement: Measurement) -> bool:
        """Count the next record, whose tokens were counted. Returns True if the trainer uses all of it."""
        assert measurement.lengths is not None, "the tokens of all records are counted for this report"
        self.tokens += sum(measurement.lengths)
        self.lengths[max(measurement.lengths)] += 1
        return super().add(measurement)

    @property
    def longest(self) -> int:
        """The token ids of the longest text, 0 without records."""
        return max(self.lengths, default=0)

    def _lengths_text(self) -> str:
        return f"; the longest has {self.longest}"
