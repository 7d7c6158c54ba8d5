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
# A model that ran on into the next turn leaves the start of a marker behind. "Assistant:" with its colon is no such
# rest: it ends a prompt.
_RUN_ON = ("\n\nHuman:", "\n\nHuman", "\n\nAssistant")


def is_transcript(text: str) -> bool:
    """Whether a text is a transcript: it starts with a human turn, after a blank line or before an assistant's."""
    if text.startswith((_HUMAN, "\r\n\r\nHuman:")):
        return True
    return text.lstrip().startswith("Human:") and _ASSISTANT in text.replace("\r\n", "\n")


class TranscriptError(ValueError):
    """A transcript that cannot be understood; the message is a reason to count it under."""


def strip_run_on(text: str) -> str:
    """The text without the start of a turn that nobody speaks."""
    spoken = text.rstrip()
    return next((spoken.removesuffix(start) for start in _RUN_ON if spoken.endswith(start)), text)


def parse_transcript(text: str) -> Conversation:
    """A transcript's turns, as `split_turns` gives them, without a run-on into a turn that nobody speaks."""
    return alternating(split_turns(strip_run_on(text)))


def alternating(contents: Sequence[str]) -> Conversation:
    """The conversation of what its speakers say in turn, the user first."""
    return Conversation(tuple(Message(_ROLES[position % 2], content) for position, content in enumerate(contents)))


def split_turns(text: str) -> list[str]:
    """What a transcript's speakers say in turn, the human first, without the white space around it.

    Unusual turns are understood where their meaning is plain: turns of one speaker in a row are joined by a blank
    line. "Human:" inside a line is text. The last reply may be empty.

    Raises:
        TranscriptError: no turns, words before the first, the assistant speaks first, a turn without words, or an
            assistant whose only turn has no blank line before it.
    """
    if "\r\n\r\n" in text:
        text = text.replace("\r\n", "\n")
    # Plain splits: on a page of text they are many times faster than a regular expression.
    first, *rounds = ("\n\n" + text.lstrip()).split(_HUMAN)
    before, *replies = first.split(_ASSISTANT)
    if not (rounds or replies):
        raise TranscriptError("transcript without a turn")
    if before.strip():
        raise TranscriptError("words before the first turn")
    if replies:
        raise TranscriptError("the assistant speaks first")
    contents: list[str] = []
    for both in rounds:
        asked, *replies = both.split(_ASSISTANT)
        if len(contents) % 2:
            # The human has spoken before, and nobody since.
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
    """The transcript of a conversation.

    Raises:
        UsageError: it would be read as another conversation: a system message, white space around a text, a text
            with a turn marker in it.
    """
    text = "".join(f"{_STARTS.get(message.role)} {message.content}" for message in conversation.messages)
    try:
        same = parse_transcript(text) == conversation
    except TranscriptError:
        same = False
    if not same:
        raise UsageError("a transcript cannot hold this conversation: it would be read as another")
    return text
