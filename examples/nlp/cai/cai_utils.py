# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Upstream's `cai_utils`, with the same classes and signatures, based on `nemo_aligner_cai`.

Unlike upstream, a missing response pattern raises instead of returning None, and an empty reply is empty.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, cast

from nemo_aligner_cai.chat import Conversation, StringTemplate
from nemo_aligner_cai.data.length import filter_file
from nemo_aligner_cai.data.length_report import LengthReport
from nemo_aligner_cai.data.tokenizer import load_tokenizer
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import PathLike

Chat: TypeAlias = "list[dict[str, Any]]"


class PromptTemplate:
    """A chat template with one string per role; each string has one ``{MESSAGE}``.

    Raises:
        UsageError: a role other than System, User and Assistant, or a string without exactly one ``{MESSAGE}``.
    """

    def __init__(
        self,
        role_message_format: Mapping[str, str],
        bos_token: str | None = None,
        eos_token: str | None = None,
        response_extract_pattern: str | None = None,
    ) -> None:
        if unknown := sorted(set(role_message_format) - {"System", "User", "Assistant"}):
            raise UsageError(f"unknown role {unknown[0]!r}; use System, User and Assistant")
        self.role_message_template = dict(role_message_format)
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.response_extract_pattern = response_extract_pattern
        self.template = self._make_template(None)

    def _make_template(self, system_default_message: str | None) -> StringTemplate:
        return StringTemplate(
            user_format=self.role_message_template.get("User", "{MESSAGE}"),
            assistant_format=self.role_message_template.get("Assistant", "{MESSAGE}"),
            system_format=self.role_message_template.get("System"),
            system_default_message=system_default_message,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
            response_extract_pattern=self.response_extract_pattern,
        )

    def format_messages(self, messages: "Chat | dict[str, Any]") -> str:
        """Render ``{"role": ..., "content": ...}`` messages, without an end-of-sequence token after the last.

        Raises:
            UsageError: a role that is not in the template, or two consecutive messages of one role.
        """
        messages = messages if isinstance(messages, list) else [messages]
        roles = [message.get("role") for message in messages]
        for role in roles:
            self._check_role(role)
        if any(role == following for role, following in pairwise(roles)):
            raise UsageError("two consecutive messages have the same role")
        return self.template.without_eos(Conversation.from_messages(messages))

    def create_message(self, role: str, content: str) -> dict[str, str]:
        """Build a message; raises UsageError for a role that is not in the template."""
        self._check_role(role)
        return {"role": role, "content": content}

    def _check_role(self, role: object) -> None:
        if role not in self.role_message_template:
            raise UsageError(f"unknown role {role!r}; the template has {', '.join(self.role_message_template)}")

    def extract_response(self, message: str, prompt: str | None = None) -> str:
        """Extract the stripped reply from a server's prompt and completion.

        Args:
            message: the prompt and the completion.
            prompt: the prompt. With it, patterns in the completion do not matter; without it, the reply begins after
                the last pattern, like upstream.

        Raises:
            CaiError: the pattern is missing, or is less frequent in the text than in the prompt.
            UsageError: the template has no pattern.
        """
        pattern = self.response_extract_pattern
        if not pattern:
            raise UsageError("extract_response needs a response_extract_pattern")
        ends = [found.end() for found in re.finditer(re.escape(pattern), message)]
        number = prompt.count(pattern) if prompt else len(ends)
        if not 0 < number <= len(ends):
            raise CaiError(f"the pattern {pattern!r} is missing in {message[:80]!r}")
        reply = message[ends[number - 1] :]
        return (reply.split(self.eos_token)[0] if self.eos_token else reply).strip()

    @staticmethod
    def is_valid_role_message_template(message_template: str) -> bool:
        """Return True if a role's string has exactly one ``{MESSAGE}``."""
        return message_template.count("{MESSAGE}") == 1


class UserAssistantPromptTemplate(PromptTemplate):
    """The template of upstream's seven flags. A missing or empty format is ``{MESSAGE}``."""

    class Role:
        """Role names."""

        User = "User"
        Assistant = "Assistant"
        System = "System"

    def __init__(
        self,
        user_format: str | None = None,
        assistant_format: str | None = None,
        system_format: str | None = None,
        system_default_message: str | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        response_extract_pattern: str | None = None,
    ) -> None:
        if system_format is None and system_default_message is not None:
            raise UsageError("system_default_message needs a system_format")
        formats = {"User": user_format or "{MESSAGE}", "Assistant": assistant_format or "{MESSAGE}"}
        if system_format is not None:
            formats["System"] = system_format
        super().__init__(formats, bos_token, eos_token, response_extract_pattern)
        self.system_default_message = system_default_message
        self.template = self._make_template(system_default_message)

    def has_system_role(self) -> bool:
        """Return True if the template supports a system message."""
        return "System" in self.role_message_template

    def create_user_message(self, content: str) -> dict[str, str]:
        """Build a user message."""
        return self.create_message(self.Role.User, content)

    def create_assistant_message(self, content: str) -> dict[str, str]:
        """Build an assistant message."""
        return self.create_message(self.Role.Assistant, content)

    def create_system_message(self, content: str) -> dict[str, str]:
        """Build a system message."""
        return self.create_message(self.Role.System, content)


class ChatTemplateHelper:
    """The chat input of NeMo's server: the conversations of a batch, turn by turn."""

    @staticmethod
    def check_and_process_chat_message(message: Sequence[Any]) -> tuple[bool, list[Any]]:
        """Return True if the argument is a conversation or a batch of them, and the batch."""
        items = list(message)
        if items and all(isinstance(item, dict) for item in items):
            return True, [items]
        return bool(items) and all(_is_chat(item) for item in items), items

    @staticmethod
    def collate_chat_messages(messages: Sequence[Any]) -> list[dict[str, list[str]]]:
        """Collate a batch to one ``{"role": [per conversation], "content": [per conversation]}`` per turn.

        Raises:
            UsageError: not a batch of messages, or conversations with different roles.
        """
        is_chat, batch = ChatTemplateHelper.check_and_process_chat_message(messages)
        if not is_chat:
            raise UsageError("needs a list of messages, or a list of such lists")
        for chat in batch:
            if any("role" not in turn or "content" not in turn for turn in chat):
                raise UsageError("every message needs the keys 'role' and 'content'")
            if [turn["role"] for turn in chat] != [turn["role"] for turn in batch[0]]:
                raise UsageError("the conversations of a batch must have the same roles in the same order")
        return [
            {"role": [turn["role"] for turn in turns], "content": [turn["content"] for turn in turns]}
            for turns in zip(*batch, strict=True)
        ]


def _is_chat(item: object) -> bool:
    if not isinstance(item, list):
        return False
    turns = cast(list[object], item)
    return bool(turns) and all(isinstance(turn, dict) for turn in turns)


def remove_long_dialogs(
    input_file_path: PathLike,
    max_seq_length: int,
    tokenizer_model: PathLike,
    tokenizer_library: str | None,
    output_dir: PathLike,
    use_pool: bool = True,
) -> dict[str, Any]:
    """Write the SFT rows that fit in `max_seq_length`, under upstream's file name.

    Args:
        input_file_path: SFT chat rows.
        max_seq_length: the model's sequence length.
        tokenizer_model: a SentencePiece model or a Hugging Face folder.
        tokenizer_library: accepted for compatibility; detected from `tokenizer_model`.
        output_dir: the output folder.
        use_pool: accepted for compatibility; the tokenizer has its own threads.

    Returns:
        ``output_file``, ``num_removed_ids``, ``removed_ids`` (from 0), ``length_statistics`` (rows by token count).

    Raises:
        UsageError, FormatError: a file cannot be read, or a row is invalid.
    """
    source = Path(input_file_path)
    target = Path(output_dir) / f"{source.stem}_remove_long_dialogs_max_seq_{max_seq_length}{source.suffix}"
    use = filter_file(
        source,
        target,
        "sft-chat",
        kind=LengthReport,
        tokenizer=load_tokenizer(tokenizer_model),
        seq_length=max_seq_length,
        overwrite=True,
    )
    return {
        "output_file": str(target),
        "num_removed_ids": len(use.skipped),
        "removed_ids": [number - 1 for number in sorted(use.skipped)],
        "length_statistics": dict(sorted(use.lengths.items())),
    }
