# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Prompts, and few-shot examples of answer, critique and revision.

`nemo_aligner_cai.data.prompt_files` reads prompts from data files.
"""

import re
from dataclasses import dataclass
from typing import Any, cast

from nemo_aligner_cai.chat import Conversation, Message, Role, require_user_last
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import PathLike, Row, content_hash, read_unique_json
from nemo_aligner_cai.prompts.transcript import strip_run_on


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with a user turn. `id` is a hash of its content: equal prompts have equal ids."""

    id: str
    conversation: Conversation

    @classmethod
    def of(cls, conversation: Conversation) -> "Prompt":
        """Create the prompt of a conversation; raises UsageError unless a user turn is the last."""
        require_user_last(conversation)
        return cls(content_hash(conversation.to_messages()), conversation)


_MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")
_USER_MARKERS = ("Human", "CritiqueRequest", "RevisionRequest")
# The texts of upstream's example file, which is to be filled in; a model would copy them.
_PLACEHOLDERS = {
    "prompt",
    "response",
    "critique request",
    "critique response",
    "revision request",
    "revision response",
}


def read_few_shots(path: PathLike) -> tuple[Conversation, ...]:
    """Read few-shot examples of answer, critique and revision.

    Args:
        path: upstream's ``{"samples": [[{"role": "User", "content": ...}, ...], ...]}``, a list of such lists, or
            Anthropic's CritiqueRevisionFewShotPrompts.json (a list of texts).

    Raises:
        UsageError: the file has another form, an example does not end with the assistant, or it is upstream's
            placeholder.
    """
    document = read_unique_json(path)
    if isinstance(document, dict):
        keys = ("samples", "system_chats", "system_chat")
        document = next((value for key in keys if (value := cast(Row, document).get(key))), None)
    if not isinstance(document, list) or not document:
        raise UsageError(f'{path}: few-shot examples are needed: {{"samples": [[{{"role": ..., "content": ...}}]]}}')
    return tuple(_few_shot_example(path, position, item) for position, item in enumerate(cast(list[Any], document)))


def _few_shot_example(path: PathLike, position: int, item: Any) -> Conversation:
    try:
        conversation = _of_markers(item) if isinstance(item, str) else _of_messages(item)
    except UsageError as error:
        raise UsageError(f"{path}: example {position}: {error}") from error
    turns = conversation.turns
    if conversation.system.strip():
        raise UsageError(
            f"{path}: example {position}: has a system message, which an example inside a conversation cannot have; "
            "move its text into the first user turn"
        )
    if not turns or turns[-1].role is not Role.ASSISTANT:
        raise UsageError(f"{path}: example {position}: must end with an assistant turn")
    if all(turn.content.strip().lower() in _PLACEHOLDERS for turn in turns):
        raise UsageError(f"{path}: example {position}: has placeholders such as 'prompt'; write real examples")
    return conversation


def _of_messages(item: Any) -> Conversation:
    if not isinstance(item, list) or not all(isinstance(one, dict) for one in cast(list[Any], item)):
        raise UsageError('must be a text, or a list of messages such as {"role": "user", "content": "..."}')
    return Conversation.from_messages(cast(list[Row], item))


def _of_markers(text: str) -> Conversation:
    before, *parts = _MARKER.split(strip_run_on(text))
    if before.strip():
        raise UsageError(f"has words before its first turn, {before.strip()[:40]!r}; begin it with 'Human:'")
    return Conversation(
        tuple(
            Message(Role.USER if name in _USER_MARKERS else Role.ASSISTANT, content.strip())
            for name, content in zip(parts[::2], parts[1::2], strict=True)
        )
    )
