# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Scores saved by a reward model, for pairs with a known better reply.

Input, one of:
    {"question": "...", "response_A": "...", "response_B": "...", "label": "A>B", "source": "mmlu-pro-law",
     "judgments": [{"judgment": {"scores": [5.6, 14.6]}, ...}, ...]}      JudgeBench; the scores of the first judgment
    {"prompt": "...", "text_chosen": "...", "text_rejected": "...", "subset": "refusals-dangerous",
     "scores_chosen": 5.6, "scores_rejected": 14.6}                       RewardBench; its columns may be lists
    {"prompt": "...", "chosen": "...", "rejected": "...", "chosen_score": 5.6, "rejected_score": 14.6}
                                                                          the form of RLHFlow's data sets
Output: ScoredPair(prompt, category, chosen=ScoredReply(length=812, score=5.6), rejected=ScoredReply(...))
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.known_answers.judge_item import CORRECT
from nemo_aligner_cai.evaluation.known_answers.judge_item_formats import judgebench_item
from nemo_aligner_cai.files import PathLike, Row, content_hash, read_jsonl

SCORES_FILE = "reward_scores.jsonl"
"""The file of a run with its reward model's scores of held-out pairs."""


@dataclass(frozen=True)
class ScoredReply:
    """A reply's length in characters, and its score, on any scale on which higher is better."""

    length: int
    score: float


@dataclass(frozen=True)
class ScoredPair:
    """Two replies to one prompt, the first known to be better. `prompt` is the prompt's hash."""

    prompt: str
    category: str | None
    chosen: ScoredReply
    rejected: ScoredReply

    @property
    def margin(self) -> float:
        """The score of the better reply minus that of the other."""
        return self.chosen.score - self.rejected.score


_COLUMNS = (
    ("text_chosen", "text_rejected", "scores_chosen", "scores_rejected"),
    ("chosen", "rejected", "chosen_score", "rejected_score"),
)
"""The keys of the texts and scores of each format of chosen and rejected replies."""


def has_scores(row: Row) -> bool:
    """True if a row has scores, and not only verdicts."""
    if "judgments" in row:
        first: object = row_values.objects(row, "judgments")[0].get("judgment")
        return isinstance(first, dict) and "scores" in first
    return any(better in row for _, _, better, _ in _COLUMNS)


def read_scored(path: PathLike) -> Iterator[ScoredPair]:
    """Read pairs in file order.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row is not a pair with scores.
    """
    for line, row in read_jsonl(path):
        try:
            for one in _rows(row):
                yield _judgebench(one) if "judgments" in one else _chosen_rejected(one)
        except UsageError as error:
            raise FormatError.at(path, line, f"not a pair with scores: {error}") from error


def _rows(row: Row) -> Iterator[Row]:
    """Yield the row, or the rows of a table whose columns are lists; other values of a table are of all its rows."""
    columns = {key: cast(list[Any], value) for key, value in row.items() if isinstance(value, list)}
    if not isinstance(row.get("scores_chosen"), list):
        yield row
        return
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise UsageError(f"the columns have different lengths: {', '.join(map(str, sorted(lengths)))}")
    for values in zip(*columns.values(), strict=True):
        yield row | dict(zip(columns, values, strict=True))


def _judgebench(row: Row) -> ScoredPair:
    item = judgebench_item(row)
    judgment: object = row_values.objects(row, "judgments")[0].get("judgment")
    if not isinstance(judgment, dict):
        raise RowError("judgment", f"must be an object, it is {row_values.type_of(judgment)}")
    scores: object = cast(Row, judgment).get("scores")
    if not isinstance(scores, list) or len(cast(list[object], scores)) != len(item.candidates):
        raise RowError("scores", f"must be a list of {len(item.candidates)} numbers")
    named = {str(number): score for number, score in enumerate(cast(list[object], scores))}
    replies = {
        candidate.key: ScoredReply(len(candidate.text), _score(named, str(number)))
        for number, candidate in enumerate(item.candidates)
    }
    rejected = next(reply for key, reply in replies.items() if key != CORRECT)
    return ScoredPair(content_hash(row_values.text(row, "question")), item.category, replies[CORRECT], rejected)


def _chosen_rejected(row: Row) -> ScoredPair:
    for *texts, better, worse in _COLUMNS:
        if better in row or worse in row:
            chosen, rejected = (_reply(row, key) for key in texts)
            prompt: Any = row.get("prompt", [chosen, rejected])
            category = row_values.optional_text(row, "subset")
            replies = (ScoredReply(len(text), _score(row, key)) for text, key in ((chosen, better), (rejected, worse)))
            return ScoredPair(content_hash(prompt), category, *replies)
    names = ", or ".join(" and ".join(map(repr, columns)) for columns in _COLUMNS)
    raise UsageError(f"the row needs the keys {names}; it has {row_values.describe_keys(row)}")


def _reply(row: Row, key: str) -> str:
    if isinstance(row.get(key), list):
        return row_values.messages(row, key).messages[-1].content
    return row_values.text(row, key)


def _score(row: Row, key: str) -> float:
    score = row_values.optional_number(row, key)
    if score is None:
        raise RowError(key, "is missing; a reward model gives every reply a score")
    return score
