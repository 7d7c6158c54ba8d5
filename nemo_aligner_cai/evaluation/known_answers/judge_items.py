# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Read items with a known answer, and keep what a judge says of them.

Input:  rows of the data sets in judge_item_formats.py
Output: JudgeItem, each once; and JudgedItem, their rows with verdicts
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.known_answers.judge_item import CORRECT, JudgeItem
from nemo_aligner_cai.evaluation.known_answers.judge_item_formats import read_item
from nemo_aligner_cai.files import PathLike, Row, RowCounts, read_json, read_jsonl, require_file
from nemo_aligner_cai.files.compact_sets import CompactSet
from nemo_aligner_cai.files.reading import read_lines
from nemo_aligner_cai.prompts.transcript import TranscriptError
from nemo_aligner_cai.stages.comparisons import judged_row


def read_items(path: PathLike, *, counts: RowCounts, limit: int | None = None) -> Iterator[JudgeItem]:
    """Read items in file order; duplicates are skipped.

    Args:
        path: a .jsonl or .json file.
        counts: receives the rows read and the skipped rows by reason.
        limit: maximum number of items.

    Raises:
        UsageError: the file cannot be read (at the call).
        FormatError: a row is not an item, or of another kind than the rows before it.
    """
    return islice(_items(require_file(path), counts), limit)


def _items(path: Path, counts: RowCounts) -> Iterator[JudgeItem]:
    seen = CompactSet()
    is_comparison: bool | None = None
    for line, row in _rows(path):
        counts.rows_in += 1
        try:
            item = read_item(row)
        except (UsageError, TranscriptError) as error:
            raise FormatError.at(path, line, str(error)) from error
        if is_comparison not in (None, item.is_comparison):
            raise FormatError.at(
                path, line, "this item is of another kind than those before it; use one file per kind"
            )
        is_comparison = item.is_comparison
        if not seen.add(int(item.id, 16)):
            counts.skip("duplicate item")
            continue
        counts.written += 1
        yield item


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line, row), and for the list "examples" of a task of BIG-bench (line, example)."""
    first = next((content for _, content in read_lines(path)), b"")
    documents = [(1, read_json(path))] if first.strip() == b"{" else read_jsonl(path)
    for line, row in documents:
        examples = row_values.objects(row, "examples") if "examples" in row else [row]
        yield from ((line, example) for example in examples)


@dataclass(frozen=True)
class JudgedItem:
    """A judged row with its category and the judge's answer: a candidate's key, or None without a decision."""

    row: JudgedRow
    category: str | None
    answer: str | None

    @classmethod
    def of(cls, item: JudgeItem) -> "JudgedItem":
        """Return the row of an item, whether it has been judged or not."""
        preferences = item.judgment.preferences if item.judgment else ()
        answer = item.candidates[preferences[0].chosen].key if preferences else None
        return cls(judged_row(item), item.category, answer)

    @classmethod
    def from_row(cls, row: Row) -> "JudgedItem":
        """Read a row written by `to_row`; raises RowError if it is another row, or has no correct candidate."""
        category, answer = (row_values.optional_text(row, key) for key in ("category", "answer"))
        judged = JudgedRow.from_row(row)
        if CORRECT not in (candidate.key for candidate in judged.candidates):
            raise RowError("candidates", f"none has the key {CORRECT!r}, so the right answer is not known")
        return cls(judged, category, answer)

    def to_row(self) -> Row:
        """Return the judged row with the two additional keys."""
        return self.row.to_row() | {"category": self.category, "answer": self.answer}
