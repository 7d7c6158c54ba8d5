# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Keeping the texts of a record from forging turns."""

from dataclasses import replace

from nemo_aligner_cai.chat import Conversation, NemoChatTemplate, TokenPolicy, guard
from nemo_aligner_cai.data.records import Chat, Comparison, Judged, PromptOnly, Rated, Record, Scored
from nemo_aligner_cai.files import RowCounts


def guard_record(
    record: Record, template: NemoChatTemplate, *, policy: TokenPolicy, counts: RowCounts, rows: int = 1
) -> Record | None:
    """Apply `nemo_aligner_cai.chat.guard` to all texts of a record, and count it as `rows` rows. None: dropped."""
    record_counts = RowCounts()

    def safe(conversation: Conversation) -> Conversation:
        # The counts say whether one of the texts was dropped.
        return guard(conversation, template, policy=policy, counts=record_counts) or conversation

    def safe_text(text: str) -> str:
        return safe(Conversation.of_user(text)).messages[0].content

    def safe_pair(pair: Comparison) -> Comparison:
        prompt, chosen, rejected = safe(pair.prompt), safe_text(pair.chosen), safe_text(pair.rejected)
        return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)

    match record:
        case Chat() | Scored():
            result = replace(record, conversation=safe(record.conversation))
        case PromptOnly():
            result = replace(record, prompt=safe(record.prompt))
        case Rated():
            result = replace(record, prompt=safe(record.prompt), reply=safe_text(record.reply))
        case Comparison():
            result = safe_pair(record)
        case Judged():
            comparisons = tuple(map(safe_pair, record.comparisons))
            result = replace(record, prompt=safe(record.prompt), comparisons=comparisons)
    for reason in record_counts.skipped:
        counts.skip(reason, rows)
    for what in record_counts.noted:
        counts.note(what, rows)
    return None if record_counts.skipped else result
