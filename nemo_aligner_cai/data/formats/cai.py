# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The raw files of the generation stages as read-only formats.

    cai-revisions    {"id", "prompt": [...], "response", "critique", "revision": "I would rather not ...", ...}
    cai-comparisons  {"id", "prompt": [...], "candidates": [...], "pairs": [{"chosen", "rejected", ...}], ...}

`stages/revisions.py` and `stages/comparisons.py` describe the rows.
"""

from collections.abc import Sequence

from nemo_aligner_cai.chat import NemoChatTemplate, Role
from nemo_aligner_cai.data.formats import row_values
from nemo_aligner_cai.data.formats.base import Format
from nemo_aligner_cai.data.formats.row_values import RowError
from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.data.records import Chat, Judged
from nemo_aligner_cai.files import Row

SL_CAI = "sl_cai_samples"
"""The `dataset` of revised answers, as upstream's script writes it."""
RL_CAI = "rl_cai_samples"
"""The `dataset` of AI preferences."""


class CaiRevisions(Format):
    """Prompts with the last revision of their answer. The answer and its critique are not part of the record."""

    name = "cai-revisions"
    description = "raw SL-CAI data, cai_revisions.jsonl: answers, critiques and revisions (read only)"
    kind = Chat
    read_only = True
    origin = "written by `cai data sl-cai`"
    required_keys = frozenset({"prompt", "revision"})
    keys = frozenset({"prompt", "revision", "dataset"})

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Chat:
        row = rows[0]
        revision = row_values.text(row, "revision")
        if not revision.strip():
            raise RowError("revision", "is empty; remove the row")
        conversation = row_values.prompt(row, "prompt").with_turn(Role.ASSISTANT, revision)
        return Chat(conversation, row_values.optional_text(row, "dataset") or SL_CAI)


class CaiComparisons(Format):
    """Prompts with the pairs that a judge made of their candidates, with rewards where it gave probabilities."""

    name = "cai-comparisons"
    description = "raw RL-CAI data, cai_comparisons.jsonl: candidates, verdicts and pairs (read only)"
    kind = Judged
    read_only = True
    origin = "written by `cai data rl-cai`"
    required_keys = frozenset({"candidates", "pairs"})
    keys = frozenset({"prompt", "pairs", "dataset"})

    def read(self, rows: Sequence[Row], template: NemoChatTemplate) -> Judged:
        judged = JudgedRow.from_row(rows[0])
        dataset = judged.dataset or RL_CAI
        return Judged(judged.prompt, judged.comparisons(dataset), dataset)
