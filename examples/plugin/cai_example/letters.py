# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A format: {"letter": "How do I ...?", "answer": "Dear reader, ..."}, one conversation a row."""

from typing import Any

from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.fields import TEXT, Field, FieldFormat
from nemo_aligner_cai.data.records import Chat, Record
from nemo_aligner_cai.errors import UsageError


class Letters(FieldFormat):
    """Letters to the editor, and the editor's answers."""

    name = "letters"
    description = "letters to the editor: letter, answer"
    kind = Chat
    fields = (Field("letter", TEXT), Field("answer", TEXT))
    prompt_part = "letter"

    def record(self, parts: dict[str, Any]) -> Record:
        """Build the conversation."""
        letter, answer = parts.pop("letter"), parts.pop("answer")
        return Chat(Conversation.of_user(letter).with_turn(Role.ASSISTANT, answer), **parts)

    def parts(self, record: Chat) -> dict[str, str]:
        """The letter and its answer; raises UsageError for any other conversation."""
        if len(record.conversation.messages) != 2:
            raise UsageError("it has more than one letter and one answer")
        letter, answer = record.conversation.messages
        return {"letter": letter.content, "answer": answer.content}
