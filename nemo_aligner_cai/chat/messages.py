# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Messages and conversations, the types that the whole package passes around."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, cast

from nemo_aligner_cai.errors import UsageError


class Role(str, Enum):
    """The author of a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"

    speaker: str
    """The name in NeMo's files and templates: "System", "User" or "Assistant"."""

    def __init__(self, value: str) -> None:
        # An attribute, since every text of every row is looked at by its speaker.
        self.speaker = value.capitalize()

    @classmethod
    def of(cls, name: object) -> "Role":
        """Parse a role in any common spelling ("User", "user", "human", "gpt"); raises UsageError for others."""
        role = _ROLE_NAMES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            # repr() of another value may fail: it can be nested too deep.
            shown = f" {name[:40]!r}" if isinstance(name, str) else f", a {type(name).__name__}"
            raise UsageError(f"unknown role{shown}; use one of system, user, assistant")
        return role


_ROLE_NAMES = {
    **dict.fromkeys(("system", "developer"), Role.SYSTEM),
    # "prompter" is from Open Assistant; the assistants are from ShareGPT and WildChat.
    **dict.fromkeys(("user", "human", "prompter"), Role.USER),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bing", "bard", "claude", "gemini", "bot", "chatbot", "model", "ai"),
        Role.ASSISTANT,
    ),
}


@dataclass(frozen=True, init=False)
class Message:
    """The text of one speaker. `label` is the attribute string of a steerable reply ("quality:4,toxicity:0")."""

    role: Role
    content: str
    label: str | None = None

    def __init__(self, role: Role, content: str, label: str | None = None) -> None:
        # Much faster than the generated method of a frozen dataclass, and every text of every row is a message.
        fields = self.__dict__
        fields["role"] = role
        fields["content"] = content
        fields["label"] = label

    @cached_property
    def plain(self) -> dict[str, str]:
        """``{"role": "user", "content": ...}``; cached, since few-shot examples are in many conversations."""
        return {"role": self.role.value, "content": self.content}


@dataclass(frozen=True)
class Conversation:
    """Messages in order; only the first may be a system message."""

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        # Twice as fast as any(): few-shot examples make conversations long.
        if Role.SYSTEM in [message.role for message in self.messages[1:]]:
            raise UsageError("a system message must be the first and only one of its conversation")

    @classmethod
    def of_user(cls, text: str, system: str = "") -> "Conversation":
        """A conversation of one user turn, the form of most prompts."""
        start = (Message(Role.SYSTEM, system),) if system else ()
        return cls((*start, Message(Role.USER, text)))

    @classmethod
    def from_messages(cls, messages: Iterable[Mapping[str, Any]]) -> "Conversation":
        """Parse ``[{"role": ..., "content": ...}, ...]``, or ``from`` and ``value``; a content may be text parts.

        Raises:
            UsageError: a message has another form, or holds something unsupported, such as tool calls or a weight.
        """
        return cls(tuple(_message(position, item) for position, item in enumerate(messages)))

    def to_messages(self) -> list[dict[str, str]]:
        """``[{"role": "user", "content": ...}, ...]``, the form of OpenAI's and NeMo's chat endpoints."""
        return [message.plain for message in self.messages]

    @property
    def system(self) -> str:
        """The system message's text; "" if there is none."""
        return self.messages[0].content if self.messages and self.messages[0].role is Role.SYSTEM else ""

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages without the system message."""
        return self.messages[1:] if self.messages and self.messages[0].role is Role.SYSTEM else self.messages

    def with_turn(self, role: Role, text: str, label: str | None = None) -> "Conversation":
        """A copy with one more message at the end."""
        return Conversation((*self.messages, Message(role, text, label)))

    def with_system(self, text: str) -> "Conversation":
        """A copy with `text` as the system message; this conversation if `text` is "" or it has one already."""
        if not text or self.system.strip():
            return self
        return Conversation((Message(Role.SYSTEM, text), *self.turns))

    def without_last(self) -> "Conversation":
        """A copy without the last message."""
        return Conversation(self.messages[:-1])


_OPENAI_KEYS = frozenset({"role", "content"})
READ_KEYS = frozenset({"role", "from", "content", "value"})
"""The keys of a message that are read."""
_UNSUPPORTED = frozenset(
    {
        *("tool_calls", "tool_call_id", "tools", "function_call", "functions", "name", "refusal", "prefix"),
        *("images", "image", "audio", "audios", "video", "videos", "reasoning_content", "reasoning", "thinking"),
    }
)
"""The keys of a message that change its meaning and are not supported."""
_WEIGHTS = frozenset(
    {"weight", "loss_weight", "loss_scale", "train", "train_on_turn", "train_detail", "trainable", "training", "loss"}
)
"""The keys that decide if a reply is trained; other roles are never trained."""

_CHANGING = _UNSUPPORTED | _WEIGHTS


def _message(position: int, item: Mapping[str, Any]) -> Message:
    content = item.get("content")
    if isinstance(content, str) and item.keys() <= _OPENAI_KEYS:
        return Message(Role.of(item.get("role")), content)
    if "role" not in item and "from" not in item:
        raise UsageError(f"message {position}: needs the keys 'role' and 'content'")
    refuse_message_keys(position, item)
    content = content if content is not None else item.get("value")
    return Message(Role.of(item.get("role", item.get("from"))), _text(position, content))


def refuse_message_keys(position: int, item: Mapping[str, Any]) -> None:
    """Raises UsageError, with the key, for a message with unsupported content or a reply that is not trained."""
    # Almost all messages of almost all files.
    if _CHANGING.isdisjoint(item):
        return
    is_reply = Role.of(item.get("role", item.get("from"))) is Role.ASSISTANT
    for key, value in item.items():
        if key in _UNSUPPORTED and value not in (None, "", [], {}):
            raise UsageError(
                f"message {position}: {key!r} is not supported; remove the row, or the key if it does not matter"
            )
        if is_reply and key in _WEIGHTS and value not in (None, True):
            raise UsageError(
                f"message {position}: {key!r} is not 1, but every reply of a conversation is trained; remove the row, "
                "or end it before this message"
            )


def _type_of(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _text(position: int, content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise UsageError(
            f"message {position}: the key 'content' must be a string, got {_type_of(cast(object, content))}"
        )
    parts = cast(list[Any], content)
    texts: list[str] = []
    for part in parts:
        entry: Mapping[str, Any] = (
            cast(Mapping[str, Any], part) if isinstance(part, Mapping) else {"type": "text", "text": part}
        )
        kind, text = entry.get("type"), entry.get("text")
        if kind not in ("text", "input_text", "output_text"):
            shown = f"of type {kind[:40]!r}" if isinstance(kind, str) else "without a type"
            raise UsageError(f"message {position}: 'content' has a part {shown}; only text parts are supported")
        if not isinstance(text, str):
            raise UsageError(f"message {position}: a text part of 'content' must have a string, got {_type_of(text)}")
        texts.append(text)
    return "\n".join(texts)


def require_user_last(conversation: Conversation) -> None:
    """Raises UsageError unless the last message is a user turn."""
    if not conversation.messages or conversation.messages[-1].role is not Role.USER:
        raise UsageError("a prompt must end with a user turn")
