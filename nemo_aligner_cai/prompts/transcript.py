# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Anthropic's transcripts: one text in which "\n\nHuman:" and "\n\nAssistant:" start the turns.

Input:  "\n\nHuman: Hi\n\nAssistant: Hello"
Output: Conversation((Message(Role.USER, "Hi"), Message(Role.ASSISTANT, "Hello")))
"""

from collections.abc import Sequence

from nemo_aligner_cai.chat import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_ROLES = (Role.USER, Role.ASSISTANT)
_STARTS = {Role.USER: _HUMAN, Role.ASSISTANT: _ASSISTANT}
# The start of a marker, left by a model that continued into the next turn. "Assistant:" with its colon is not in the
# list: it ends a prompt.
_RUN_ON = ("\n\nHuman:", "\n\nHuman", "\n\nAssistant")


def is_transcript(text: str) -> bool:
    """True if a text starts with a human turn, after a blank line or before an assistant turn."""
    if text.startswith((_HUMAN, "\r\n\r\nHuman:")):
        return True
    return text.lstrip().startswith("Human:") and _ASSISTANT in text.replace("\r\n", "\n")


class TranscriptError(ValueError):
    """A transcript that cannot be parsed; the message is the reason to count it under."""


def strip_run_on(text: str) -> str:
    """Remove the marker of an empty last turn."""
    spoken = text.rstrip()
    return next((spoken.removesuffix(start) for start in _RUN_ON if spoken.endswith(start)), text)


def parse_transcript(text: str) -> Conversation:
    """Parse a transcript with `split_turns`, without an empty last turn."""
    return alternating(split_turns(strip_run_on(text)))


def alternating(contents: Sequence[str]) -> Conversation:
    """Create a conversation of alternating turns, the user first."""
    return Conversation(tuple(Message(_ROLES[position % 2], content) for position, content in enumerate(contents)))


def split_turns(text: str) -> list[str]:
    """Split a transcript into alternating texts, the human first, without the white space around them.

    Consecutive turns of one speaker are joined by a blank line. "Human:" inside a line is text. The last reply may be
    empty.

    Raises:
        TranscriptError: no turns, text before the first, the assistant speaks first, an empty turn, or an assistant
            whose only turn has no blank line before it.
    """
    if "\r\n\r\n" in text:
        text = text.replace("\r\n", "\n")
    # str.split is many times faster on a page of text than a regular expression.
    first, *pairs = ("\n\n" + text.lstrip()).split(_HUMAN)
    before, *replies = first.split(_ASSISTANT)
    if not (pairs or replies):
        raise TranscriptError("transcript without a turn")
    if before.strip():
        raise TranscriptError("words before the first turn")
    if replies:
        raise TranscriptError("the assistant speaks first")
    contents: list[str] = []
    for both in pairs:
        asked, *replies = both.split(_ASSISTANT)
        if len(contents) % 2:
            # The turn before is the human's too.
            asked = _joined(contents.pop(), asked)
        contents.append(asked.strip())
        if replies:
            contents.append(replies[0].strip() if len(replies) == 1 else _joined(*replies))
    if len(contents) == 1 and "\nAssistant:" in contents[0]:
        raise TranscriptError("no blank line before the assistant's turn")
    if "" in contents[: len(contents) - (len(contents) % 2 == 0)]:
        raise TranscriptError("empty turn")
    return contents


def _joined(*parts: str) -> str:
    return "\n\n".join(filter(None, (part.strip() for part in parts)))


def write_transcript(conversation: Conversation) -> str:
    """Write a conversation as a transcript.

    Raises:
        UsageError: the transcript would be parsed as another conversation, because of a system message, white space
            around a text, or a turn marker in a text.
    """
    text = "".join(f"{_STARTS.get(message.role)} {message.content}" for message in conversation.messages)
    try:
        same = parse_transcript(text) == conversation
    except TranscriptError:
        same = False
    if not same:
        raise UsageError("a transcript cannot represent this conversation: it would be parsed as another")
    return text
