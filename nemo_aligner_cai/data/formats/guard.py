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
    """Keep a record's texts from forging turns, as `guard` does for a conversation; `rows` is what it counts for."""
    counted = RowCounts()

    def safe(conversation: Conversation) -> Conversation | None:
        return guard(conversation, template, policy=policy, counts=counted)

    def safe_text(text: str) -> str | None:
        guarded = safe(Conversation.of_user(text))
        return guarded.messages[0].content if guarded else None

    def safe_pair(pair: Comparison) -> Comparison | None:
        prompt, chosen, rejected = safe(pair.prompt), safe_text(pair.chosen), safe_text(pair.rejected)
        if prompt is None or chosen is None or rejected is None:
            return None
        return replace(pair, prompt=prompt, chosen=chosen, rejected=rejected)

    match record:
        case Chat() | Scored():
            conversation = safe(record.conversation)
            result = replace(record, conversation=conversation) if conversation else None
        case PromptOnly():
            prompt = safe(record.prompt)
            result = replace(record, prompt=prompt) if prompt else None
        case Rated():
            prompt, reply = safe(record.prompt), safe_text(record.reply)
            result = None if prompt is None or reply is None else replace(record, prompt=prompt, reply=reply)
        case Comparison():
            result = safe_pair(record)
        case Judged():
            prompt = safe(record.prompt)
            kept = tuple(pair for pair in map(safe_pair, record.comparisons) if pair is not None)
            whole = len(kept) == len(record.comparisons)
            result = replace(record, prompt=prompt, comparisons=kept) if prompt and whole else None
    for reason in counted.skipped:
        counts.skip(reason, rows)
    for what in counted.noted:
        counts.note(what, rows)
    return result
