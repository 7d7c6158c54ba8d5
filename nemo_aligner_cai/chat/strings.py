# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Chat templates given by one string per role, as in upstream's seven command-line flags."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

from nemo_aligner_cai.chat.delimiters import Delimiters
from nemo_aligner_cai.chat.messages import Conversation, Role, require_user_last
from nemo_aligner_cai.chat.template import ChatTemplate
from nemo_aligner_cai.errors import UsageError

_PLACE = "{MESSAGE}"


@dataclass(frozen=True)
class StringTemplate(ChatTemplate):
    """A template given by one string per role.

    The assistant's header may be in the user's string, as in upstream's defaults, or in the assistant's own.

    Raises:
        UsageError: a string without exactly one ``{MESSAGE}``, or a default system message without a system string.
    """

    user_format: str
    assistant_format: str
    system_format: str | None = None
    system_default_message: str | None = None
    bos_token: str | None = None
    eos_token: str | None = None
    response_extract_pattern: str | None = None

    def __post_init__(self) -> None:
        for name in ("user_format", "assistant_format", "system_format"):
            text = getattr(self, name)
            if text is not None and text.count(_PLACE) != 1:
                raise UsageError(f"--{name} must contain {_PLACE} exactly once, got {text!r}")
        if self.system_default_message and self.system_format is None:
            raise UsageError("--system_default_message needs --system_format")

    @property
    def stop(self) -> tuple[str, ...]:
        """The end-of-sequence token, if there is one."""
        return (self.eos_token,) if self.eos_token else ()

    @property
    def end_of_turn(self) -> str:
        """The text after a reply, up to the end-of-sequence token."""
        after = self._around_reply[1]
        return after.split(self.eos_token)[0] if self.eos_token else after

    @property
    def reply_end(self) -> str:
        """The text after ``{MESSAGE}``, with the end-of-sequence token."""
        return self._around_reply[1] + self._missing_eos

    @property
    def assistant_header(self) -> str:
        """The given pattern, or else the text between a user's text and a reply."""
        return self.response_extract_pattern or self._around_reply[0] or self.user_format.split(_PLACE)[1]

    @property
    def template_tokens(self) -> tuple[str, ...]:
        """The special tokens in the strings; without any, the words that name a speaker."""
        return self._delimiters.template_tokens

    def render(self, conversation: Conversation) -> str:
        """The formatted turns, with the end-of-sequence token after a last reply."""
        last = conversation.messages[-1].role if conversation.messages else None
        return self.without_eos(conversation) + (self._missing_eos if last is Role.ASSISTANT else "")

    def generation_prompt(self, conversation: Conversation) -> str:
        """The text that ends where the assistant speaks next; raises UsageError unless a user turn is the last."""
        require_user_last(conversation)
        return self.without_eos(conversation) + self._around_reply[0]

    def without_eos(self, conversation: Conversation) -> str:
        """The formatted turns alone, as upstream's ``format_messages`` gives them."""
        (before, after), (reply_before, reply_after) = self._around_user, self._around_reply
        parts = [self._start(conversation)]
        for turn in conversation.turns:
            if turn.role is Role.USER:
                parts += (before, turn.content, after)
            else:
                parts += (reply_before, turn.content, reply_after)
        return "".join(parts)

    @cached_property
    def _around_user(self) -> tuple[str, str]:
        before, after = self.user_format.split(_PLACE)
        return before, after

    @cached_property
    def _around_reply(self) -> tuple[str, str]:
        before, after = self.assistant_format.split(_PLACE)
        return before, after

    @cached_property
    def _missing_eos(self) -> str:
        return "" if not self.eos_token or self.eos_token in self.assistant_format else self.eos_token

    def _start(self, conversation: Conversation) -> str:
        given = bool(conversation.messages) and conversation.messages[0].role is Role.SYSTEM
        text = conversation.system if given else self.system_default_message
        if self.system_format is None and text:
            raise UsageError("this chat template has no place for a system message; give --system_format")
        system = "" if self.system_format is None or text is None else self.system_format.replace(_PLACE, text)
        return (self.bos_token or "") + system

    @cached_property
    def _delimiters(self) -> Delimiters:
        return Delimiters(self.render, self.generation_prompt, (self.bos_token or "", self.eos_token or ""))


TEMPLATE_FLAGS = tuple(field.name for field in fields(StringTemplate))
"""Upstream's command-line flags for a template, by their names in a parsed namespace."""


def template_from_flags(flags: Mapping[str, str | None]) -> StringTemplate:
    r"""Build the template of upstream's flags, which contain ``\n`` as two characters.

    Args:
        flags: values by name. Names outside `TEMPLATE_FLAGS` are ignored; a missing or empty user or assistant format
            is the bare message.

    Raises:
        UsageError: a format without exactly one ``{MESSAGE}``, or a text that is not Unicode.
    """
    values = {name: unescape(text) for name in TEMPLATE_FLAGS if (text := flags.get(name)) is not None}
    for name, text in values.items():
        if lone := _SURROGATE.search(text):
            raise UsageError(f"--{name} contains {lone[0]!r}: half of a character or a byte that is not UTF-8")
    user, assistant = (values.pop(name, "") or _PLACE for name in ("user_format", "assistant_format"))
    return StringTemplate(user, assistant, **values)


def unescape(text: str) -> str:
    r"""Replace ``\n``, ``\t``, ``\r``, ``\\``, ``\xHH`` and ``\uHHHH`` by the characters they stand for."""
    text = _ESCAPE.sub(lambda match: _ESCAPED.get(match[1]) or chr(int(match[1][1:], 16)), text)
    # As in JSON, a surrogate pair (``\ud83c\udf88``) is one character.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


_ESCAPE = re.compile(r"\\(n|t|r|\\|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_SURROGATE = re.compile("[\ud800-\udfff]")
