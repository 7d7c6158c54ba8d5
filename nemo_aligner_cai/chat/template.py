# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The interface of chat templates, and the guard that keeps untrusted text from forging turns."""

from abc import ABC, abstractmethod
from dataclasses import replace
from enum import Enum
from functools import cached_property

from nemo_aligner_cai.chat.messages import Conversation, Message
from nemo_aligner_cai.chat.special_tokens import SpecialTokens
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.files import RowCounts


class ChatTemplate(ABC):
    """Renders a conversation as text for a model, and extracts the reply from a server's text.

    For every conversation `c` that ends with a user turn and every `reply`:
    ``render(c + reply) == generation_prompt(c) + reply_start + reply + reply_end``.
    """

    @property
    @abstractmethod
    def stop(self) -> tuple[str, ...]:
        """Strings that end a reply during generation."""

    @property
    @abstractmethod
    def end_of_turn(self) -> str:
        """The text between a reply and the stop string; models learn to write it."""

    @property
    def reply_start(self) -> str:
        """The text between the generation prompt and a reply; models learn to write it."""
        return ""

    @property
    @abstractmethod
    def reply_end(self) -> str:
        """The text after the last reply in training: the end of its turn and the stop string."""

    @property
    @abstractmethod
    def assistant_header(self) -> str:
        """The text right before each assistant reply."""

    @property
    @abstractmethod
    def template_tokens(self) -> tuple[str, ...]:
        """The strings that have a meaning in the template and must not occur in a message."""

    @abstractmethod
    def render(self, conversation: Conversation) -> str:
        """The whole conversation as SFT trains on it."""

    @abstractmethod
    def generation_prompt(self, conversation: Conversation) -> str:
        """The text that ends where the assistant speaks next.

        Raises:
            UsageError: the conversation does not end with a user turn.
        """

    def extract_reply(self, text: str, conversation: Conversation) -> str:
        """The assistant's reply in a server's prompt + completion text.

        NeMo's server decodes the prompt again from its tokens, so the text may differ from the prompt. The reply
        starts after as many assistant headers as the prompt has. Turns that the model invents after it are cut off.

        Args:
            text: the server's text, including the prompt.
            conversation: the conversation that `generation_prompt` rendered.

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
                raise CaiError(f"the server's text does not contain the prompt that was sent: {text[:80]!r}")
            start = found + len(header)
        return self.trim_reply(text[start:])

    def trim_reply(self, completion: str) -> str:
        """A completion without its prompt, up to the end of the assistant's turn."""
        end = min((found for found in map(completion.find, self.stop) if found >= 0), default=len(completion))
        return completion[:end].removesuffix(self.end_of_turn).removeprefix(self.reply_start)

    def contains_template_token(self, text: str) -> bool:
        """True if the text could forge a turn."""
        return self._special.found_in(text)

    def escape(self, text: str) -> str:
        """Insert a space into each template token, so that it loses its meaning and stays readable."""
        return self._special.escape(text)

    @cached_property
    def _special(self) -> SpecialTokens:
        return SpecialTokens(self.template_tokens)


class TokenPolicy(str, Enum):
    """The treatment of a text that contains the template's own tokens and could forge a turn."""

    ESCAPE = "escape"
    DROP = "drop"
    ERROR = "error"


def guard(
    conversation: Conversation, template: ChatTemplate, *, policy: TokenPolicy, counts: RowCounts
) -> Conversation | None:
    """Keep untrusted text from forging turns; an escaped or dropped conversation is counted in `counts`.

    Returns:
        The conversation itself if no message contains template tokens; otherwise an escaped copy, or None if the
        policy is DROP.

    Raises:
        UsageError: the policy is ERROR.
    """
    forges = template.contains_template_token
    if not any(forges(turn.content) or (turn.label and forges(turn.label)) for turn in conversation.messages):
        return conversation
    if policy is TokenPolicy.ERROR:
        raise UsageError(
            "a text contains the chat template's own tokens "
            f"({', '.join(map(repr, template.template_tokens))}); give --on-template-tokens escape or drop"
        )
    if policy is TokenPolicy.DROP:
        counts.skip("contains template tokens")
        return None
    counts.note("template tokens escaped")
    return Conversation(tuple(_escaped(message, template) for message in conversation.messages))


def _escaped(message: Message, template: ChatTemplate) -> Message:
    label = message.label and template.escape(message.label)
    return replace(message, content=template.escape(message.content), label=label)
