# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Typed access to the values of a row. Every function raises `RowError`, which names the key and the fix."""

import math
from typing import cast

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import TranscriptError, is_transcript, parse_transcript


class RowError(UsageError):
    """A key of a row is invalid. `position` is the row's index within its record."""

    def __init__(self, key: str, problem: str, *, position: int = 0) -> None:
        super().__init__(f"key {key!r}: {problem}")
        self.position = position


def type_of(value: object) -> str:
    """The name of a value's type, for a message. The value itself may be too long or too deeply nested to show."""
    return "null" if value is None else type(value).__name__


def describe_keys(row: Row) -> str:
    """A row's keys, for a message."""
    return ", ".join(repr(key[:40]) for key in row) or "no keys"


def text(row: Row, key: str, *, position: int = 0) -> str:
    """A string, unchanged."""
    if key not in row:
        raise RowError(key, f"is missing; the row has {describe_keys(row)}", position=position)
    value: object = row[key]
    if not isinstance(value, str):
        raise RowError(key, f"must be a string, it is {type_of(value)}", position=position)
    return value


def optional_text(row: Row, key: str) -> str | None:
    """A string, or None if the key is missing or null."""
    return None if row.get(key) is None else text(row, key)


def optional_number(row: Row, key: str) -> float | None:
    """A finite number, or None if the key is missing or null."""
    value: object = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RowError(key, f"must be a number, it is {type_of(value)}")
    if not math.isfinite(value):
        raise RowError(key, f"must be a finite number, it is {value}")
    return float(value)


def boolean(row: Row, key: str) -> bool:
    """True or False."""
    value: object = row.get(key)
    if not isinstance(value, bool):
        raise RowError(key, "must be true or false")
    return value


def objects(row: Row, key: str) -> list[Row]:
    """A non-empty list of objects."""
    if key not in row:
        raise RowError(key, f"is missing; the row has {describe_keys(row)}")
    value: object = row[key]
    if not isinstance(value, list) or not value:
        raise RowError(key, "must be a non-empty list")
    for item in cast(list[object], value):
        if not isinstance(item, dict):
            raise RowError(key, f"must be a list of objects, it has an item of type {type_of(item)}")
    return cast(list[Row], value)


def messages(row: Row, key: str) -> Conversation:
    """A conversation from ``[{"role": ..., "content": ...}, ...]``. An empty system message is dropped."""
    items = objects(row, key)
    try:
        conversation = Conversation.from_messages(items)
    except UsageError as error:
        raise RowError(key, str(error)) from error
    if conversation.messages[0] == Message(Role.SYSTEM, ""):
        return Conversation(conversation.messages[1:])
    return conversation


def prompt(row: Row, key: str) -> Conversation:
    """A conversation from messages that ends with a user turn."""
    conversation = messages(row, key)
    if not conversation.turns or conversation.turns[-1].role is not Role.USER:
        raise RowError(key, "must end with a user turn; move the assistant's last turn into the reply")
    return conversation


def question(row: Row, key: str) -> Conversation:
    """A prompt from a string: one user turn, or a transcript that may end with an empty assistant turn."""
    if not is_transcript(value := text(row, key)):
        return Conversation.of_user(value)
    conversation = transcript(row, key)
    if conversation.messages[-1] == Message(Role.ASSISTANT, ""):
        conversation = conversation.without_last()
    if conversation.messages[-1].role is not Role.USER:
        raise RowError(key, "is a transcript that must end with a human turn; move the last reply out of it")
    return conversation


def transcript(row: Row, key: str) -> Conversation:
    """A conversation from a transcript, see `nemo_aligner_cai.prompts.transcript`."""
    try:
        return parse_transcript(text(row, key))
    except TranscriptError as error:
        raise RowError(key, str(error)) from error


def single_reply(row: Row, key: str) -> str:
    """The text of a list with one assistant message."""
    conversation = messages(row, key)
    if len(conversation.messages) != 1 or conversation.messages[0].role is not Role.ASSISTANT:
        raise RowError(key, "must be one assistant message")
    return conversation.messages[0].content


def split_reply(conversation: Conversation, key: str, *, position: int = 0) -> tuple[Conversation, str]:
    """Split a conversation into its prompt and the assistant's last reply."""
    turns = conversation.turns
    if len(turns) < 2 or turns[-1].role is not Role.ASSISTANT or turns[-2].role is not Role.USER:
        raise RowError(key, "must end with a user turn and the assistant's reply to it", position=position)
    return conversation.without_last(), turns[-1].content


def require_different(chosen: str, rejected: str, key: str, *, position: int = 0) -> None:
    """Raise RowError for a pair of equal replies."""
    if chosen == rejected:
        raise RowError(key, "chosen and rejected are the same text; remove the pair", position=position)
