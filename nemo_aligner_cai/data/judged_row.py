# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""One row of `cai_comparisons.jsonl`: a prompt, its candidate responses, every verdict and the pairs that were kept.

Input:  {"id": "9f86...", "prompt": [{"role": "user", "content": "How do I pick a lock?"}],
         "candidates": [{"key": "response_t=0.01", "text": "Take a ..."}, {"key": "response_t=0.51", "text": "No"}],
         "pairs": [{"chosen": "No", "rejected": "Take a ...", "chosen_key": "response_t=0.51",
                    "rejected_key": "response_t=0.01", "probability": 0.93, "principle": "crime", "explanation": ""}],
         "verdicts": [{"shown": [0, 1], "principle": "crime", "better": 1, "worse": 0, "probability": 0.03,
                       "raw": "(B)"}]}
Output: JudgedRow(id, prompt, candidates, pairs, verdicts)

Every writer and every reader of these rows uses this class, so that a row means the same to all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.records import Comparison
from nemo_aligner_cai.data.soft_labels import rewards
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike, Row, read_jsonl


@dataclass(frozen=True)
class JudgedCandidate:
    """One response; `key` names its sampling."""

    key: str
    text: str


@dataclass(frozen=True)
class JudgedPair:
    """A pair that was kept: its texts, and the keys of its candidates.

    `probability` is the judge's, above 0.5, that `chosen` is better; None if the judge gave none.
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
    """One answer of the judge about the candidates `shown`, by their numbers in this order; see `generate.judge`."""

    shown: tuple[int, ...]
    principle: str | None
    better: int | None
    worse: int | None
    probability: float | None
    raw: str


@dataclass(frozen=True)
class JudgedRow:
    """A prompt with all that a judge said of its candidates. `dataset` is its origin, None in a stage's own file."""

    id: str
    prompt: Conversation
    candidates: tuple[JudgedCandidate, ...]
    pairs: tuple[JudgedPair, ...]
    verdicts: tuple[JudgedVerdict, ...]
    dataset: str | None = None

    @classmethod
    def from_row(cls, row: Row) -> "JudgedRow":
        """Read a row. Other keys are allowed: they belong to whoever added them.

        Raises:
            RowError: a key is missing or of the wrong type, or a pair or verdict names a candidate that is not there.
        """
        judged = cls(
            take.text(row, "id"),
            take.prompt(row, "prompt"),
            tuple(map(_candidate, _objects(row, "candidates"))),
            tuple(map(_pair, _objects(row, "pairs"))),
            tuple(map(_verdict, _objects(row, "verdicts"))),
            take.optional_text(row, "dataset"),
        )
        judged.kept()
        numbers = {n for v in judged.verdicts for n in (*v.shown, v.better, v.worse) if n is not None}
        if unknown := numbers - set(range(len(judged.candidates))):
            raise RowError("verdicts", f"name the candidate {max(unknown)}, there are {len(judged.candidates)}")
        return judged

    def to_row(self) -> dict[str, Any]:
        """The row as JSON holds it; ``from_row(to_row()) == self``."""
        row: dict[str, Any] = {
            "id": self.id,
            "prompt": self.prompt.to_messages(),
            "candidates": [vars(one) for one in self.candidates],
            "pairs": [vars(one) for one in self.pairs],
            "verdicts": [vars(one) for one in self.verdicts],
        }
        return row if self.dataset is None else row | {"dataset": self.dataset}

    def kept(self) -> list[tuple[int, int]]:
        """The numbers (chosen, rejected) of the candidates of each pair; raises RowError for unknown candidates."""
        numbers = {candidate.key: number for number, candidate in enumerate(self.candidates)}
        try:
            return [(numbers[pair.chosen_key], numbers[pair.rejected_key]) for pair in self.pairs]
        except KeyError as unknown:
            raise RowError("pairs", f"name the candidate {unknown}, which is not there") from None

    def comparisons(self, dataset: str | None = None) -> tuple[Comparison, ...]:
        """The pairs, with rewards where the judge gave probabilities; `dataset` is for rows that have no origin."""
        return tuple(
            Comparison(self.prompt, pair.chosen, pair.rejected, self.dataset or dataset, *rewards(pair.probability))
            for pair in self.pairs
        )


def read_judged(path: PathLike) -> Iterator[JudgedRow]:
    """The rows of a comparisons file, one in memory at a time.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row is not a `JudgedRow`.
    """
    for line, row in read_jsonl(path):
        try:
            yield JudgedRow.from_row(row)
        except UsageError as error:
            raise FormatError.at(path, line, f"not a row of cai_comparisons.jsonl: {error}; give that file") from error


def _objects(row: Row, key: str) -> list[Row]:
    return [] if row.get(key) == [] else take.objects(row, key)


def _candidate(row: Row) -> JudgedCandidate:
    return JudgedCandidate(take.text(row, "key"), take.text(row, "text"))


def _pair(row: Row) -> JudgedPair:
    chosen, rejected = take.text(row, "chosen"), take.text(row, "rejected")
    take.different(chosen, rejected, "pairs")
    probability = take.optional_number(row, "probability")
    if probability is not None and not 0.5 < probability <= 1:
        raise RowError("probability", f"must be above 0.5 for the chosen one, it is {probability:g}")
    keys = take.text(row, "chosen_key"), take.text(row, "rejected_key")
    principle, explanation = take.optional_text(row, "principle"), take.optional_text(row, "explanation")
    return JudgedPair(chosen, rejected, *keys, probability, principle, explanation or "")


def _verdict(row: Row) -> JudgedVerdict:
    shown: object = row.get("shown")
    if not isinstance(shown, list) or not shown or not all(map(_is_number, cast(list[object], shown))):
        raise RowError("shown", "must be a list of candidates' numbers")
    named = {key: row.get(key) for key in ("better", "worse")}
    for key, value in named.items():
        if value is not None and not _is_number(value):
            raise RowError(key, f"must be a candidate's number or null, it is {take.type_of(value)}")
    return JudgedVerdict(
        tuple(cast(list[int], shown)),
        take.optional_text(row, "principle"),
        named["better"],
        named["worse"],
        take.optional_number(row, "probability"),
        take.optional_text(row, "raw") or "",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
