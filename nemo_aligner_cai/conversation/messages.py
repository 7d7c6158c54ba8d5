# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Who said what: the one form of a conversation that all of the package passes around."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from nemo_aligner_cai.errors import UsageError


class Role(str, Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"

    @property
    def speaker(self) -> str:
        """The name in NeMo's files and templates: "System", "User" or "Assistant"."""
        return self.value.capitalize()

    @classmethod
    def of(cls, name: object) -> "Role":
        """A role from any spelling in use ("User", "user", "human", "gpt"); raises UsageError for others."""
        role = _ROLE_NAMES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise UsageError(f"unknown role {name!r}; use one of system, user, assistant")
        return role


_ROLE_NAMES = {
    "system": Role.SYSTEM,
    "user": Role.USER,
    "human": Role.USER,
    "assistant": Role.ASSISTANT,
    "gpt": Role.ASSISTANT,
}


@dataclass(frozen=True, init=False)
class Message:
    """What one speaker says. `label` is the attribute string of a steerable reply ("quality:4,toxicity:0")."""

    role: Role
    content: str
    label: str | None = None

    def __init__(self, role: Role, content: str, label: str | None = None) -> None:
        # Every text of every row becomes one of these, and a frozen dataclass initializes itself three times slower.
        self.__dict__.update(role=role, content=content, label=label)

    @cached_property
    def plain(self) -> dict[str, str]:
        """As ``{"role": "user", "content": ...}``; made once, since few-shots stand in many conversations."""
        return {"role": self.role.value, "content": self.content}


@dataclass(frozen=True)
class Conversation:
    """Messages in order; a system message, if any, is the first and the only one."""

    messages: tuple[Message, ...]

    def __post_init__(self) -> None:
        # A list, which is made twice as fast as any() steps: few-shots make conversations long.
        if Role.SYSTEM in [message.role for message in self.messages[1:]]:
            raise UsageError("a system message must be the first and only one of its conversation")

    @classmethod
    def of_user(cls, text: str, system: str = "") -> "Conversation":
        """One user turn, as most prompts are."""
        start = (Message(Role.SYSTEM, system),) if system else ()
        return cls((*start, Message(Role.USER, text)))

    @classmethod
    def from_messages(cls, messages: Iterable[Mapping[str, Any]]) -> "Conversation":
        """From ``[{"role": ..., "content": ...}, ...]``; raises UsageError where a message is not that."""
        return cls(tuple(_message(position, item) for position, item in enumerate(messages)))

    def to_messages(self) -> list[dict[str, str]]:
        """As ``[{"role": "user", "content": ...}, ...]``, the form of OpenAI's and NeMo's chat endpoints."""
        return [message.plain for message in self.messages]

    @property
    def system(self) -> str:
        """The system message's text, "" where there is none."""
        return self.messages[0].content if self.messages and self.messages[0].role is Role.SYSTEM else ""

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages that are not the system's."""
        return self.messages[1:] if self.messages and self.messages[0].role is Role.SYSTEM else self.messages

    def with_turn(self, role: Role, text: str, label: str | None = None) -> "Conversation":
        """This conversation with one more message at its end."""
        return Conversation((*self.messages, Message(role, text, label)))

    def with_system(self, text: str) -> "Conversation":
        """This conversation with a system message, if it has none or only white space; with "", as it is."""
        if not text or self.system.strip():
            return self
        return Conversation((Message(Role.SYSTEM, text), *self.turns))

    def without_last(self) -> "Conversation":
        """This conversation without its last message."""
        return Conversation(self.messages[:-1])


def _message(position: int, item: Mapping[str, Any]) -> Message:
    content = item.get("content")
    if not isinstance(content, str):
        raise UsageError(f"message {position}: the key 'content' must be a text, it is {type(content).__name__}")
    return Message(Role.of(item.get("role")), content)


def require_user_last(conversation: Conversation) -> None:
    """Raises UsageError unless the assistant is the next to speak."""
    if not conversation.messages or conversation.messages[-1].role is not Role.USER:
        raise UsageError("a prompt must end with a user turn")
