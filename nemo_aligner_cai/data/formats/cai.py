# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The raw files of the generation stages, `cai_revisions.jsonl` and `cai_comparisons.jsonl`, as formats to read.

    cai-revisions    {"id", "prompt": [...], "response", "critique", "revision": "I would rather not ...", ...}
    cai-comparisons  {"id", "prompt": [...], "candidates": [...], "pairs": [{"chosen", "rejected", ...}], ...}

`stages/revisions.py` and `stages/comparisons.py` describe the rows. They come of asking models, so nothing can be
converted into them.
"""

from collections.abc import Sequence

from nemo_aligner_cai.chat import NemoChatTemplate, Role
from nemo_aligner_cai.data.formats import row_values as take
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.data.records import Chat, Judged, Record
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row

SL_CAI = "sl_cai_samples"
"""The origin that revised answers carry through every file, as upstream's script writes it."""
RL_CAI = "rl_cai_samples"
"""The origin that AI preferences carry."""


class CaiRevisions(Format):
    """Prompts with the last revision of their answer."""

    name = "cai-revisions"
    description = "raw SL-CAI data, cai_revisions.jsonl: answers, critiques and revisions (read only)"
    kind = Chat
    read_only = True
    keys = frozenset({"prompt", "revision", "dataset"})

    def matches(self, row: Row) -> bool:
        """By the keys ``prompt`` and ``revision``."""
        return "prompt" in row and "revision" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Chat:
        """One row: the prompt and the revision; the answer and its critique are no part of the conversation."""
        row = rows[0]
        revision = take.text(row, "revision")
        if not revision.strip():
            raise RowError("revision", "is empty; remove the row")
        conversation = take.prompt(row, "prompt").with_turn(Role.ASSISTANT, revision)
        return Chat(conversation, take.optional_text(row, "dataset") or SL_CAI)

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """Raises UsageError: a critique cannot be made of a conversation."""
        raise UsageError(f"{self.name} rows are made by a model (`cai data sl-cai`), not out of other data")


class CaiComparisons(Format):
    """Prompts with what a judge made of their candidate responses."""

    name = "cai-comparisons"
    description = "raw RL-CAI data, cai_comparisons.jsonl: candidates, verdicts and pairs (read only)"
    kind = Judged
    read_only = True
    keys = frozenset({"prompt", "pairs", "dataset"})

    def matches(self, row: Row) -> bool:
        """By the keys ``candidates`` and ``pairs``."""
        return "candidates" in row and "pairs" in row

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Judged:
        """One row: all of its pairs, of which there may be none, with rewards where the judge gave probabilities."""
        judged = JudgedRow.from_row(rows[0])
        dataset = judged.dataset or RL_CAI
        return Judged(judged.prompt, judged.comparisons(dataset), dataset)

    def write(self, record: Record, template: NemoChatTemplate) -> tuple[Row, ...]:
        """Raises UsageError: a judge's verdicts cannot be made of a comparison."""
        raise UsageError(f"{self.name} rows are made by a model (`cai data rl-cai`), not out of other data")
