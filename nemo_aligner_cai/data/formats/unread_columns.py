# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Columns that a format does not read: system messages are carried, other meaning is refused, the rest is listed.

Input:  {"system": "Answer in French.", "messages": [...], "id": 7}, read as messages
Output: the conversation with the system message; {"id"} for the row counts

Names are compared without case, spaces and underscores, so that "System Prompt" is found too.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.chat.messages import READ_KEYS
from nemo_aligner_cai.data.formats.row_values import RowError, describe_keys
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
"""Columns with the context of a reply. They may repeat text of the record; all else would be lost."""
PAIR_KEYS = (("input", "output"), ("human", "assistant"))
"""The keys of a user's text and its reply, in lists of objects that hold both."""
_UNSUPPORTED = frozenset(
    {
        *("tools", "functions", "toolcalls", "functioncall", "images", "image", "audio", "audios", "video", "videos"),
        *("weight", "sampleweight", "lossweight", "chattemplatekwargs"),
    }
)
"""Columns that change the meaning of a row and that no record can hold. They must be empty, or a weight of 1."""
_VERDICTS = frozenset(
    {
        *("label", "ktotag", "issafe", "preference", "desirable", "iscorrect", "accepted"),
        *("responselabel", "responseharmlabel", "safety", "safetylabel"),
    }
)
"""Columns that label the reply good or bad."""
_BAD = (False, 0, "false", "0", "no", "rejected", "bad", "undesirable", "unsafe", "harmful")
_EMPTY = (None, "", "[]", "{}", "null", "[[]]")


@cache
def plain_name(column: str) -> str:
    """A column's name reduced to lower-case letters and digits."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


@dataclass(frozen=True)
class ColumnChoice:
    """The columns to ignore, and the column that holds the prompts, None to detect it."""

    ignore: frozenset[str] = frozenset()
    prompt: str | None = None

    def apply(self, row: Row) -> tuple[Row, set[str]]:
        """Return the row without the columns that are not read, and their names.

        Raises:
            RowError: The row lacks the prompt column.
        """
        if self.prompt is not None:
            if self.prompt not in row:
                raise RowError(self.prompt, f"is missing; the row has {describe_keys(row)}")
            chosen = {"prompt": row[self.prompt]} | {key: row[key] for key in row if plain_name(key) in SYSTEM}
            return chosen, row.keys() - {self.prompt, *chosen}
        if not self.ignore:
            return row, set()
        kept = {key: _drop_keys(value, self.ignore) for key, value in row.items() if key not in self.ignore}
        return kept, set(self.ignore)


def _drop_keys(value: Any, keys: Collection[str]) -> Any:
    """Drop keys from a list of messages. Other values are returned unchanged."""
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
    """Add the system message of a column that the format does not read to the record.

    Args:
        record: The record that the format has read.
        rows: Its rows.
        known: The keys that the format reads.
        unused: Receives the names of the columns that are ignored.
        strict: Refuse a system message too, because the format's trainer does not see it.

    Raises:
        RowError: A column has a meaning that the record would lose.
    """
    for row in rows:
        unread = row.keys() - known
        ignored = set(unread)
        record_text: str | None = None
        for key in sorted(unread):
            name, value = plain_name(key), row[key]
            if name in SYSTEM and value not in _EMPTY:
                record = _with_system(record, key, value, strict=strict)
                ignored.discard(key)
            elif name in _CONTEXT:
                record_text = record_text if record_text is not None else _text_of(record)
                context = _without_last_reply(value)
                _require_repeated(key, context, record_text)
                if context is value:
                    ignored.discard(key)
                if isinstance(value, list):
                    ignored |= _unread_in_messages(key, cast(list[Any], value))
            elif name in _UNSUPPORTED:
                _require_empty(key, value)
            elif name in _VERDICTS and isinstance(record, Chat) and _is_bad(value):
                raise RowError(key, f"is {value!r}: this bad reply would be learned; remove the row")
        unused |= ignored
        for key in row.keys() & known:
            if isinstance(row[key], list):
                unused |= _unread_in_messages(key, row[key])
    return record


def _is_bad(value: object) -> bool:
    return (value.lower() if isinstance(value, str) else value) in _BAD


def _unread_in_messages(key: str, items: list[Any]) -> set[str]:
    names: set[str] = set()
    for item in items:
        if isinstance(item, dict) and ("role" in item or "from" in item):
            names.update(cast(Row, item))
    # The turns of NeMo's SFT rows have labels, which are read.
    read = READ_KEYS | {"label"} if key == "conversations" else READ_KEYS
    return {f"{key}[].{name}" for name in names - read}


def _with_system(record: Record, key: str, value: object, *, strict: bool) -> Record:
    if not isinstance(value, str):
        raise RowError(key, f"must be a string, it is {type(value).__name__}")
    conversation = conversations_of(record)[0]
    if conversation.system in (value, value.strip()):
        return record
    if conversation.system.strip():
        raise RowError(key, "differs from the system message of the conversation; remove one of them")
    if strict:
        raise RowError(key, "is not read by trainers of this format; `cai convert` turns it into a system message")
    return with_system(record, value)


def _text_of(record: Record) -> str:
    return "\n\0".join(message.content for one in conversations_of(record) for message in one.messages)


def _without_last_reply(value: Any) -> Any:
    """A list of pairs without the reply of the last one (Capybara's DPO rows): a reply is no context of a reply."""
    if not (isinstance(value, list) and value and isinstance(value[-1], dict)):
        return cast(Any, value)
    *pairs, last = cast(list[Any], value)
    reply = next((reply for user, reply in PAIR_KEYS if last.keys() >= {user, reply}), None)
    return [*pairs, {key: last[key] for key in last if key != reply}] if reply is not None else cast(Any, value)


def _require_repeated(key: str, value: object, record_text: str) -> None:
    for part in _parts(value):
        if not (isinstance(part, str) and part.strip() in record_text):
            raise RowError(
                key,
                "has content that this format cannot hold; move it into the prompt or the system message, or give "
                f"--ignore-columns {key} to drop it",
            )


def _parts(value: object) -> Iterator[object]:
    """The texts, numbers and other scalars in a value, without role names and transcript markers."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += _values(cast(Row, item))
        elif isinstance(item, list):
            stack += cast(list[object], item)
        elif isinstance(item, str):
            yield from _turn_texts(item) if item not in _EMPTY else ()
        elif item is not None:
            yield item


def _values(item: Row) -> Iterable[object]:
    """The text of a message; all values of another object."""
    try:
        return [Conversation.from_messages([item]).messages[0].content]
    except UsageError:
        return item.values()


def _turn_texts(text: str) -> list[str]:
    if not is_transcript(text):
        return [text]
    try:
        return split_turns(text)
    except TranscriptError:
        return [text]


def _require_empty(key: str, value: object) -> None:
    empty = value in _EMPTY or value == [] or value == {}
    if not (empty or ("weight" in key.lower() and value in (1, "1", "1.0"))):
        raise RowError(key, f"is not supported; remove the row, or give --ignore-columns {key} to drop it")


def one_of(row: Row, keys: Sequence[str], what: str) -> str:
    """The key among `keys` that has a value in the row.

    Raises:
        UsageError: No key has a value, or two have different values.
    """
    present = [key for key in keys if row.get(key) not in (None, "")]
    if not present:
        named = ", ".join(repr(key) for key in keys if key in row) or describe_keys(row)
        raise UsageError(f"has no {what} in {named}; remove the row")
    first, *others = present
    for key in others:
        if row[key] != row[first]:
            raise RowError(key, f"and {first!r} are both a {what}; remove one, or give --prompt-column or --from")
    return first
