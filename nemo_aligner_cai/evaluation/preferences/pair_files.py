# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Files of models compared in pairs.

Input, one of, as CSV or JSON lines:
    {"left": "sl-cai", "right": "rl-cai", "winner": "right", "prompt": "9f86..."}          evalica's; "tie" for a tie
    {"model_a": "sl-cai", "model_b": "rl-cai", "winner": "model_b", "question_id": "81"}   Chatbot Arena's
Output: PairResult(prompt="9f86...", first="sl-cai", second="rl-cai", score=0.0)

Rows without a prompt count as prompts of their own.
"""

from collections.abc import Iterator
from typing import Any

from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.errors import CaiError, FormatError, UsageError
from nemo_aligner_cai.evaluation.statistics.win_rates import PairResult
from nemo_aligner_cai.files import PathLike, Row, require_file
from nemo_aligner_cai.files.sources import read_rows

_SIDES = (("left", "right"), ("model_a", "model_b"))
_TIES = ("tie", "tie (bothbad)")
_PROMPTS = ("prompt", "question_id")


def read_pair_results(path: PathLike) -> Iterator[PairResult]:
    """Read comparisons in file order.

    Raises:
        UsageError: the file cannot be read.
        FormatError: a row is not a comparison.
    """
    for line, row in read_rows(require_file(path)):
        try:
            yield _result(line, row)
        except (UsageError, CaiError) as error:
            raise FormatError.at(path, line, f"not a comparison of two models: {error}") from error


def _result(line: int, row: Row) -> PairResult:
    sides = next((keys for keys in _SIDES if keys[0] in row), None)
    if sides is None:
        raise UsageError(
            f"the row needs 'left' and 'right', or 'model_a' and 'model_b'; it has {row_values.describe_keys(row)}"
        )
    first, second = (row_values.text(row, key) for key in sides)
    winner = row_values.text(row, "winner")
    scores = {sides[0]: 1.0, sides[1]: 0.0} | dict.fromkeys(_TIES, 0.5)
    if winner not in scores:
        raise RowError("winner", f"must be {', '.join(map(repr, scores))}")
    prompt: Any = next((row[key] for key in _PROMPTS if row.get(key) is not None), f"line {line}")
    return PairResult(str(prompt), first, second, scores[winner])
