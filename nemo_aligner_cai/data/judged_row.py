# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""One row of `cai_comparisons.jsonl`: a prompt, its candidate responses, all verdicts and the pairs that were kept.

Input:  {"id": "9f86...", "prompt": [{"role": "user", "content": "How do I pick a lock?"}],
         "candidates": [{"key": "response_t=0.01", "text": "Take a ..."}, {"key": "response_t=0.51", "text": "No"}],
         "pairs": [{"chosen": "No", "rejected": "Take a ...", "chosen_key": "response_t=0.51",
                    "rejected_key": "response_t=0.01", "probability": 0.93, "principle": "crime", "explanation": ""}],
         "verdicts": [{"shown": [0, 1], "principle": "crime", "better": 1, "worse": 0, "probability": 0.03,
                       "raw": "(B)"}]}
Output: JudgedRow(id, prompt, candidates, pairs, verdicts)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import Comparison
from nemo_aligner_cai.data.soft_labels import rewards
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, read_jsonl


@dataclass(frozen=True)
class Candidate:
    """One response. `key` names its sampling settings, as in the files of upstream's script."""

    key: str
    text: str


@dataclass(frozen=True)
class JudgedPair:
    """A pair of candidates for the training files.

    `probability` is the judge's probability that `chosen` is better, in (0.5, 1], or None if unknown.
    """

    chosen: str
    rejected: str
    chosen_key: str
    rejected_key: str
    probability: float | None
    principle: str | None
    explanation: str


@dataclass(frozen=True)
class JudgedVerdict:
    """One decision of the judge. Candidates are given by their index; `shown` is the order of presentation.

    `better` and `worse` are None for a tie, and if the completion, `raw`, has no verdict.
    """

    shown: tuple[int, ...]
    principle: str | None
    better: int | None
    worse: int | None
    probability: float | None
    raw: str

    @property
    def is_parsed(self) -> bool:
        """True for a decision or a tie, False for an unparsed answer."""
        return self.better is not None or self.probability is not None


@dataclass(frozen=True)
class JudgedRow:
    """A judged prompt. `dataset` is None in the file that the stage writes."""

    id: str
    prompt: Conversation
    candidates: tuple[Candidate, ...]
    pairs: tuple[JudgedPair, ...]
    verdicts: tuple[JudgedVerdict, ...]
    dataset: str | None = None

    @classmethod
    def from_row(cls, row: Row) -> "JudgedRow":
        """Read a row. Unknown keys are ignored.

        Raises:
            RowError: A key is missing or of the wrong type, or a pair or verdict names an unknown candidate.
        """
        judged = cls(
            row_values.text(row, "id"),
            row_values.prompt(row, "prompt"),
            tuple(map(_candidate, _objects(row, "candidates"))),
            tuple(map(_pair, _objects(row, "pairs"))),
            tuple(map(_verdict, _objects(row, "verdicts"))),
            row_values.optional_text(row, "dataset"),
        )
        judged.kept()
        indices = {n for v in judged.verdicts for n in (*v.shown, v.better, v.worse) if n is not None}
        if unknown := indices - set(range(len(judged.candidates))):
            raise RowError("verdicts", f"name candidate {max(unknown)}, there are {len(judged.candidates)} candidates")
        return judged

    def to_row(self) -> dict[str, Any]:
        """The row as a JSON object. ``from_row(to_row()) == self``."""
        row: dict[str, Any] = {
            "id": self.id,
            "prompt": self.prompt.to_messages(),
            "candidates": [vars(one) for one in self.candidates],
            "pairs": [vars(one) for one in self.pairs],
            "verdicts": [vars(one) for one in self.verdicts],
        }
        return row if self.dataset is None else row | {"dataset": self.dataset}

    def kept(self) -> list[tuple[int, int]]:
        """The candidate indices (chosen, rejected) of each pair. Raises RowError for unknown candidates."""
        indices = {candidate.key: index for index, candidate in enumerate(self.candidates)}
        try:
            return [(indices[pair.chosen_key], indices[pair.rejected_key]) for pair in self.pairs]
        except KeyError as unknown:
            raise RowError("pairs", f"name the unknown candidate {unknown}") from None

    def comparisons(self, dataset: str | None = None) -> tuple[Comparison, ...]:
        """The pairs, with rewards if the judge gave probabilities. `dataset` is the default for rows without one."""
        return tuple(
            Comparison(self.prompt, pair.chosen, pair.rejected, self.dataset or dataset, *rewards(pair.probability))
            for pair in self.pairs
        )


def read_judged(path: PathLike) -> Iterator[JudgedRow]:
    """Read the rows of a comparisons file, one at a time.

    Raises:
        UsageError: The file cannot be read.
        FormatError: A row is not a `JudgedRow`.
    """
    for line, row in read_jsonl(path):
        try:
            yield JudgedRow.from_row(row)
        except UsageError as error:
            raise FormatError.at(path, line, f"not a row of cai_comparisons.jsonl: {error}") from error


def _objects(row: Row, key: str) -> list[Row]:
    return [] if row.get(key) == [] else row_values.objects(row, key)


def _candidate(row: Row) -> Candidate:
    return Candidate(row_values.text(row, "key"), row_values.text(row, "text"))


def _pair(row: Row) -> JudgedPair:
    chosen, rejected = row_values.text(row, "chosen"), row_values.text(row, "rejected")
    row_values.require_different(chosen, rejected, "pairs")
    probability = row_values.optional_number(row, "probability")
    if probability is not None and not 0.5 < probability <= 1:
        raise RowError("probability", f"must be above 0.5 and at most 1, it is {probability:g}")
    keys = row_values.text(row, "chosen_key"), row_values.text(row, "rejected_key")
    principle, explanation = row_values.optional_text(row, "principle"), row_values.optional_text(row, "explanation")
    return JudgedPair(chosen, rejected, *keys, probability, principle, explanation or "")


def _verdict(row: Row) -> JudgedVerdict:
    shown: object = row.get("shown")
    if not isinstance(shown, list) or not shown or not all(map(_is_index, cast(list[object], shown))):
        raise RowError("shown", "must be a non-empty list of candidate indices")
    named = {key: row.get(key) for key in ("better", "worse")}
    for key, value in named.items():
        if value is not None and not _is_index(value):
            raise RowError(key, f"must be a candidate index or null, it is {row_values.type_of(value)}")
    return JudgedVerdict(
        tuple(cast(list[int], shown)),
        row_values.optional_text(row, "principle"),
        named["better"],
        named["worse"],
        row_values.optional_number(row, "probability"),
        row_values.optional_text(row, "raw") or "",
    )


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
