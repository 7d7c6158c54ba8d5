# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Verdicts saved by a judge, without asking it again.

Input, one of:
    {"question": "...", "response_A": "...", "response_B": "...", "label": "A>B", "source": "mmlu-pro-law",
     "judgments": [{"decision": "B>A"}, {"decision": "A=B"}]}     JudgeBench; the second decision is on swapped replies
    a row of `cai judge-accuracy`
Output: JudgedItem
"""

from collections.abc import Iterator

from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.judged_row import Candidate, JudgedRow, JudgedVerdict
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.known_answers.judge_item import JudgeItem
from nemo_aligner_cai.evaluation.known_answers.judge_item_formats import judgebench_item
from nemo_aligner_cai.evaluation.known_answers.judge_items import JudgedItem
from nemo_aligner_cai.files import PathLike, Row, read_jsonl

_TIE = "A=B"
_ORDERS = ((0, 1), (1, 0))


def read_saved(path: PathLike) -> Iterator[JudgedItem]:
    """Read items with saved verdicts, in file order.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row has no saved verdicts.
    """
    for line, row in read_jsonl(path):
        try:
            yield JudgedItem.from_row(row) if "verdicts" in row else _judgebench(row)
        except UsageError as error:
            raise FormatError.at(path, line, f"not an item with saved verdicts: {error}") from error


def _judgebench(row: Row) -> JudgedItem:
    item = judgebench_item(row)
    judgments = row_values.objects(row, "judgments")
    if len(judgments) > len(_ORDERS):
        raise RowError("judgments", f"must have one or two items, it has {len(judgments)}")
    verdicts = tuple(_verdict(one, shown) for one, shown in zip(judgments, _ORDERS, strict=False))
    candidates = tuple(Candidate(one.key, one.text) for one in item.candidates)
    judged = JudgedRow(item.id, item.prompt.conversation, candidates, (), verdicts)
    return JudgedItem(judged, item.category, _answer(item, verdicts))


def _verdict(judgment: Row, shown: tuple[int, int]) -> JudgedVerdict:
    decision = row_values.optional_text(judgment, "decision")
    if decision not in (None, _TIE, "A>B", "B>A"):
        raise RowError("decision", f"must be 'A>B', 'B>A', '{_TIE}' or null")
    if decision == _TIE:
        return JudgedVerdict(shown, None, None, None, 0.5, decision)
    if decision is None:
        return JudgedVerdict(shown, None, None, None, None, "")
    better, worse = shown if decision == "A>B" else shown[::-1]
    return JudgedVerdict(shown, None, better, worse, None, decision)


def _answer(item: JudgeItem, verdicts: tuple[JudgedVerdict, ...]) -> str | None:
    """Return the key of the reply that all orders prefer; None if there is none."""
    better = {verdict.better for verdict in verdicts}
    keys = [item.candidates[one].key for one in better if one is not None]
    return keys[0] if len(better) == 1 and keys else None
