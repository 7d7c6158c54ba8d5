# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Columns that a format does not read: a system message is carried, other meaning is refused, the rest is named.

Input:  {"system": "Answer in French.", "messages": [...], "id": 7}, read as messages
Output: the conversation with the system message; {"id"} for the row counts

A column that changes what a row means is used or refused, never ignored. Names are compared without case, spaces and
underscores, so that "System Prompt" is found too.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from nemo_aligner_cai.chat.messages import READ_KEYS
from nemo_aligner_cai.data.formats.row_values import RowError, described
from nemo_aligner_cai.data.records import Chat, Record, conversations_of, with_system
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import Row
from nemo_aligner_cai.prompts.transcript import TranscriptError, is_transcript, split_turns

SYSTEM = frozenset({"system", "systemprompt", "systemmessage", "systeminstruction", "sysprompt", "sys"})
"""Columns with a system message."""
_CONTEXT = frozenset(
    {
        *("prompt", "instruction", "instructions", "input", "inputs", "query", "question", "preamble", "persona"),
        *("context", "contextstring", "contexts", "passage", "passages", "document", "documents", "reference"),
        *("history", "chathistory", "conversationhistory", "dialogue", "dialog", "messages", "conversations"),
        *("conversation", "prefix", "demonstrations", "fewshots", "developer"),
    }
)
"""Columns with what a reply was given to. They may repeat what the record says; anything else would be lost."""
_NOT_TEXT = frozenset(
    {
        *("tools", "functions", "toolcalls", "functioncall", "images", "image", "audio", "audios", "video", "videos"),
        *("weight", "sampleweight", "lossweight", "chattemplatekwargs"),
    }
)
"""Columns that change what a row means and that no record can hold, unless they are empty (or a weight is 1)."""
_VERDICTS = frozenset(
    {
        *("label", "ktotag", "issafe", "preference", "desirable", "iscorrect", "accepted"),
        *("responselabel", "responseharmlabel", "safety", "safetylabel"),
    }
)
"""Columns that say whether the reply is a good one."""
_BAD = (False, 0, "false", "0", "no", "rejected", "bad", "undesirable", "unsafe", "harmful")
_EMPTY = (None, "", "[]", "{}", "null", "[[]]")


@cache
def plain_name(column: str) -> str:
    """A column's name in lower case, letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


@dataclass(frozen=True)
class ColumnChoice:
    """What a user says of the columns: those to ignore, and the one that holds the prompts."""

    ignore: frozenset[str] = frozenset()
    prompt: str | None = None

    def apply(self, row: Row) -> tuple[Row, set[str]]:
        """The row with what is to be read, and the names of what is not.

        Raises:
            RowError: the row has no such prompt column.
        """
        if self.prompt is not None:
            if self.prompt not in row:
                raise RowError(self.prompt, f"is missing; the row has {described(row)}")
            chosen = {"prompt": row[self.prompt]} | {key: row[key] for key in row if plain_name(key) in SYSTEM}
            return chosen, row.keys() - {self.prompt, *chosen}
        if not self.ignore:
            return row, set()
        kept = {key: _without(value, self.ignore) for key, value in row.items() if key not in self.ignore}
        return kept, set(self.ignore)


def _without(value: Any, keys: Collection[str]) -> Any:
    """A list of messages without some of their keys, anything else as it is."""
    if not isinstance(value, list):
        return value
    items = cast(list[Any], value)
    return [
        {key: part for key, part in cast(Row, item).items() if key not in keys} if isinstance(item, dict) else item
        for item in items
    ]


def carry(
    record: Record, rows: Sequence[Row], known: Collection[str], *, unused: set[str], strict: bool = False
) -> Record:
    """The record with the system message of a column that its format does not read.

    Args:
        record: what the format has read.
        rows: of what.
        known: the keys that the format reads.
        unused: receives the names of the columns that say nothing here.
        strict: refuse a system message too, since the format's trainer does not see it.

    Raises:
        RowError: a column says something that the record does not.
    """
    for row in rows:
        unread = row.keys() - known
        silent = set(unread)
        said: str | None = None
        for key in sorted(unread):
            name, value = plain_name(key), row[key]
            if name in SYSTEM and value not in _EMPTY:
                record = _with_system(record, key, value, strict=strict)
                silent.discard(key)
            elif name in _CONTEXT:
                said = said if said is not None else _said(record)
                _require_said(key, value, said)
                silent.discard(key)
            elif name in _NOT_TEXT:
                _require_none(key, value)
            elif name in _VERDICTS and isinstance(record, Chat) and _is_bad(value):
                raise RowError(key, f"is {value!r}: the reply is a bad one, and would be learned; remove the row")
        unused |= silent
        for key in row.keys() & known:
            unused |= _unread_in_messages(key, row[key])
    return record


def _is_bad(value: object) -> bool:
    return (value.lower() if isinstance(value, str) else value) in _BAD


def _unread_in_messages(key: str, value: Any) -> set[str]:
    if not isinstance(value, list):
        return set()
    names: set[str] = set()
    for item in cast(list[Any], value):
        if isinstance(item, dict) and ("role" in item or "from" in item):
            names.update(cast(Row, item))
    # The turns of NeMo's SFT rows have labels, which are read.
    read = READ_KEYS | {"label"} if key == "conversations" else READ_KEYS
    return {f"{key}[].{name}" for name in names - read}


def _with_system(record: Record, key: str, value: object, *, strict: bool) -> Record:
    if not isinstance(value, str):
        raise RowError(key, f"must be a text, it is {type(value).__name__}")
    conversation = conversations_of(record)[0]
    if conversation.system in (value, value.strip()):
        return record
    if conversation.system.strip():
        raise RowError(key, "says something else than the system message of the conversation; remove one of them")
    if strict:
        raise RowError(key, "is not read by trainers of this format; `cai convert` makes a system message of it")

    return with_system(record, value)


def _said(record: Record) -> str:
    return "\n\0".join(message.content for one in conversations_of(record) for message in one.messages)


def _require_said(key: str, value: object, said: str) -> None:
    for text in _texts(value):
        if text.strip() not in said:
            raise RowError(
                key,
                "says something that this format has no place for, and would be lost; put it into the prompt or the "
                f"system message, or give --ignore-columns {key} where it does not matter",
            )


def _texts(value: object) -> Iterator[str]:
    """The texts in a value, but for the names of roles and the markers of a transcript."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [
                part for key, part in cast(Row, item).items() if key in ("content", "value", "text", "instruction")
            ]
        elif isinstance(item, list):
            waiting += cast(list[object], item)
        elif isinstance(item, str) and item not in _EMPTY:
            yield from _spoken(item)


def _spoken(text: str) -> list[str]:
    if not is_transcript(text):
        return [text]
    try:
        return split_turns(text)
    except TranscriptError:
        return [text]


def _require_none(key: str, value: object) -> None:
    empty = value in _EMPTY or value == [] or value == {}
    if not (empty or ("weight" in key.lower() and value in (1, "1", "1.0"))):
        raise RowError(key, f"cannot be carried; remove the row, or give --ignore-columns {key} where it is no matter")


def one_of(row: Row, keys: Sequence[str], what: str) -> str:
    """The one of `keys` that a row has with a value.

    Raises:
        UsageError: it has none, or two that say different things.
    """
    there = [key for key in keys if row.get(key) not in (None, "")]
    if not there:
        named = ", ".join(repr(key) for key in keys if key in row) or described(row)
        raise UsageError(f"has no {what} in {named}; remove the row")
    if any(row[key] != row[there[0]] for key in there[1:]):
        raise RowError(there[1], f"and {there[0]!r} are both a {what}; remove one, or give --prompt-column or --from")
    return there[0]
