# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What every chat template can do, and how untrusted text is kept from forging turns."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property

from nemo_aligner_cai.chat.markers import Markers
from nemo_aligner_cai.chat.messages import Conversation, Message
from nemo_aligner_cai.chat.outline import Outline
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import RowCounts


@dataclass(frozen=True)
class Segment:
    """A piece of rendered text, and whether SFT computes its loss there."""

    text: str
    trained: bool


class ChatTemplate(ABC):
    """How a conversation becomes one text for a model, and how a reply is found again.

    For every conversation `c` that ends with a user turn and every `reply`:
    ``render(c + reply) == generation_prompt(c) + reply_start + reply + reply_end``.
    """

    @property
    @abstractmethod
    def stop(self) -> tuple[str, ...]:
        """Strings that end a reply while it is generated."""

    @property
    @abstractmethod
    def end_of_turn(self) -> str:
        """What the template puts between a reply's text and the stop string; models learn to write it."""

    @property
    def reply_start(self) -> str:
        """What the template puts between the generation prompt and a reply's text; models learn to write it."""
        return ""

    @property
    @abstractmethod
    def reply_end(self) -> str:
        """What follows the last reply in training text: the end of its turn, and what stops generation."""

    @property
    @abstractmethod
    def assistant_header(self) -> str:
        """The text right before each assistant's reply."""

    @property
    @abstractmethod
    def markers(self) -> tuple[str, ...]:
        """The strings that have a meaning in the template and must not stand in a message."""

    @abstractmethod
    def segments(self, conversation: Conversation) -> list[Segment]:
        """The rendered text in pieces, each trained or masked as a whole by SFT with the user's turns masked."""

    @abstractmethod
    def generation_prompt(self, conversation: Conversation) -> str:
        """The text that ends where the assistant is to speak.

        Raises:
            UsageError: the conversation does not end with a user turn.
        """

    def render(self, conversation: Conversation) -> str:
        """The whole conversation as SFT teaches it."""
        return "".join(segment.text for segment in self.segments(conversation))

    def parse(self, text: str) -> Conversation:
        """The conversation of a rendered text, or of a generation prompt (it then ends with a user turn).

        Raises:
            UsageError: the text is not exactly what this template renders, or the template does not tell turns apart.
        """
        return self._outline.parse(text)

    def extract_reply(self, text: str, conversation: Conversation) -> str:
        """The assistant's reply out of a server's prompt + completion text.

        NeMo's server decodes the prompt again from its tokens, so the text need not start with the prompt to the
        letter. The reply starts after as many assistant headers as the prompt has; whatever the model invents after
        its own reply is cut off, and an empty reply is "".

        Args:
            text: what the server returned, prompt included.
            conversation: what `generation_prompt` was made of.

        Raises:
            CaiError: the text has fewer assistant headers than the prompt.
        """
        prompt = self.generation_prompt(conversation)
        if text.startswith(prompt):
            return self.trim_reply(text[len(prompt) :])
        header = self.assistant_header
        start = 0
        for _ in range(max(1, prompt.count(header))):
            found = text.find(header, start) if header else -1
            if found < 0:
                raise CaiError(f"the server's text does not contain the prompt it was given: {text[:80]!r}")
            start = found + len(header)
        return self.trim_reply(text[start:])

    def trim_reply(self, completion: str) -> str:
        """A completion (without its prompt) up to the end of the assistant's turn."""
        end = min((found for found in map(completion.find, self.stop) if found >= 0), default=len(completion))
        return completion[:end].removesuffix(self.end_of_turn).removeprefix(self.reply_start)

    def contains_template_token(self, text: str) -> bool:
        """Whether the text could forge a turn."""
        return self._markers.found_in(text)

    def escape(self, text: str) -> str:
        """The text with a space in each template token, which so loses its meaning and stays readable."""
        return self._markers.escape(text)

    @cached_property
    def _markers(self) -> Markers:
        return Markers(self.markers)

    @cached_property
    def _outline(self) -> Outline:
        return Outline(self.render, self.generation_prompt)


class TokenPolicy(str, Enum):
    """What to do with a text that contains the template's own tokens and could forge a turn."""

    ESCAPE = "escape"
    DROP = "drop"
    ERROR = "error"


def guard(
    conversation: Conversation, template: ChatTemplate, *, policy: TokenPolicy, counts: RowCounts
) -> Conversation | None:
    """Keep untrusted text from forging turns; what happens is counted in `counts`.

    Returns:
        The conversation itself if no message contains template tokens; else an escaped copy, or None where the
        policy is to drop it.

    Raises:
        UsageError: the policy is to refuse.
    """
    forges = template.contains_template_token
    if not any(forges(turn.content) or (turn.label and forges(turn.label)) for turn in conversation.messages):
        return conversation
    if policy is TokenPolicy.ERROR:
        raise UsageError(
            "a text contains the chat template's own tokens "
            f"({', '.join(map(repr, template.markers))}); give --on-template-tokens escape or drop"
        )
    if policy is TokenPolicy.DROP:
        counts.skip("contains template tokens")
        return None
    counts.note("template tokens escaped")
    return Conversation(tuple(_escaped(message, template) for message in conversation.messages))


def _escaped(message: Message, template: ChatTemplate) -> Message:
    label = message.label and template.escape(message.label)
    return replace(message, content=template.escape(message.content), label=label)
