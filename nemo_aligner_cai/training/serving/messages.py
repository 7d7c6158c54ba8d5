# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chat messages of requests, in OpenAI's format and in that of NeMo's batches.

Input:  [{"role": "user", "content": "Hi"}]
Output: Conversation((Message(Role.USER, "Hi"),))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.training.serving.request_body import Body, bad, shown

MOST_ROWS = 128
"""Replies per request: NeMo's limit for `/generate`."""
_ROLES = {role.value: role for role in Role} | {"developer": Role.SYSTEM}


class _MessageBody(Body):
    # Clients may send a reply back with the empty fields that it had.
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = dict.fromkeys(
        ("name", "tool_calls", "function_call", "tool_call_id", "audio", "refusal", "annotations"), ([],)
    )
    role: Any = None
    content: Any = None


def parse_conversation(value: Any, param: str) -> Conversation:
    """Parse OpenAI's list of messages; raises RequestError."""
    if not isinstance(value, list) or not value:
        raise bad(param, f"must be a list of at least one message, it is {shown(value)}")
    messages = [_message(place, item, param) for place, item in enumerate(cast(list[Any], value))]
    try:
        return Conversation(tuple(messages))
    except UsageError as error:
        raise bad(param, f"are invalid: {error}") from None


def _message(place: int, item: Any, param: str) -> Message:
    where = f"{param}[{place}]"
    if not isinstance(item, dict):
        raise bad(where, f"must be an object with role and content, it is {shown(item)}")
    body = _MessageBody.parse(cast(dict[str, Any], item), prefix=f"{where}.")
    role = _ROLES.get(body.role.lower()) if isinstance(body.role, str) else None
    if role is None:
        raise bad(f"{where}.role", f"must be one of {', '.join(_ROLES)}, it is {shown(body.role)}")
    return Message(role, _content(body.content, f"{where}.content"))


def _content(content: Any, where: str) -> str:
    """A string, or a list of text parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise bad(where, f"must be a string, it is {shown(content)}")
    texts: list[str] = []
    for part in cast(list[Any], content):
        fields = cast(dict[str, Any], part) if isinstance(part, dict) else {}
        text = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            raise bad(where, "must have parts of the type text only")
        texts.append(text)
    return "".join(texts)


def parse_sentences(value: Any) -> tuple[str | Conversation, ...]:
    """Parse the `sentences` of `/generate`: strings, or NeMo's batches of conversations; raises RequestError."""
    if not isinstance(value, list) or not value:
        raise bad("sentences", f"must be a list of strings, or of chat messages, it is {shown(value)}")
    items = cast(list[Any], value)
    if isinstance(items[0], dict):
        return _conversation_batch(items)
    check_rows("sentences", len(items))
    for item in items:
        if not isinstance(item, str):
            raise bad("sentences", f"must be a list of strings, it contains {shown(item)}")
    return tuple(items)


def _conversation_batch(turns: Sequence[Any]) -> tuple[Conversation, ...]:
    """One object per turn, whose `role` and `content` are lists with an item per conversation."""
    columns: list[tuple[list[Any], list[Any]]] = []
    for turn in turns:
        fields = cast(dict[str, Any], turn) if isinstance(turn, dict) else {}
        roles, contents = fields.get("role"), fields.get("content")
        if not isinstance(roles, list) or not isinstance(contents, list):
            raise bad("sentences", "must give a list of roles and a list of contents for each turn")
        columns.append((cast(list[Any], roles), cast(list[Any], contents)))
    rows = len(columns[0][0])
    check_rows("sentences", rows)
    if any(len(part) != rows for column in columns for part in column):
        raise bad("sentences", f"must have {rows} roles and contents in each turn")
    return tuple(
        parse_conversation(
            [{"role": roles[row], "content": contents[row]} for roles, contents in columns], "sentences"
        )
        for row in range(rows)
    )


def check_rows(param: str, rows: int) -> None:
    """Raise RequestError unless there are 1 to `MOST_ROWS` rows."""
    if not 1 <= rows <= MOST_ROWS:
        raise bad(param, f"must be 1 to {MOST_ROWS}, there are {rows}")
