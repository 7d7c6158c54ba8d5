# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""The strings that a chat template writes around messages, learned by rendering a few short conversations.

Input:  a template's own render functions
Output: "<|im_start|>user\n" before a first user turn, "<|im_end|>\n<|im_start|>assistant\n" between it and a reply
"""

import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

from nemo_aligner_cai.chat.messages import Conversation, Message, Role
from nemo_aligner_cai.chat.special_tokens import find_special_tokens
from nemo_aligner_cai.errors import UsageError


class Edge(str, Enum):
    """The start of a rendered text, and its two possible ends."""

    START = "start"
    END = "end"
    """The end of a conversation in training."""
    ASK = "ask"
    """The end of a generation prompt."""


Neighbor: TypeAlias = Role | Edge

_U, _A, _S = Role.USER, Role.ASSISTANT, Role.SYSTEM
# All pairs of neighbors that a conversation can have. Many templates refuse some of them, but not the first two.
_PROBES = ((_U,), (_U, _A), (_S, _U), (_U, _A, _U), (_U, _U), (_U, _A, _A), (_A,), (_S, _A))
_REQUIRED = 2
# Private-use characters: no template writes them, and none trims them.
_PLACEHOLDER = re.compile("\ue000[0-9]\ue001")


class Delimiters:
    """The strings between messages, by the roles before and after.

    Args:
        render: renders a conversation for training.
        ask: renders a conversation as a generation prompt.
        tokens: special tokens that do not look like one.
    """

    def __init__(
        self, render: Callable[[Conversation], str], ask: Callable[[Conversation], str], tokens: Iterable[str] = ()
    ) -> None:
        self._render, self._ask, self._tokens = render, ask, {token for token in tokens if token.strip()}

    @cached_property
    def _between(self) -> dict[tuple[Neighbor, Neighbor], list[str]]:
        """The delimiters of each pair of neighbors that the template accepts, the shortest conversation's first.

        Some templates have two for one pair: they write another text before the last reply than before the others.

        Raises:
            UsageError: the template cannot render a user turn and a reply to it, or does not keep their texts.
        """
        delimiters: dict[tuple[Neighbor, Neighbor], list[str]] = {}
        for number, roles in enumerate(_PROBES):
            probe = Conversation(tuple(Message(role, _placeholder(position)) for position, role in enumerate(roles)))
            try:
                pieces = _split(self._render(probe), len(roles))
            except UsageError:
                if number < _REQUIRED:
                    raise
                continue
            for neighbors, piece in zip(pairwise((Edge.START, *roles, Edge.END)), pieces, strict=True):
                found = delimiters.setdefault(neighbors, [])
                if piece not in found:
                    found.append(piece)
        delimiters[Role.USER, Edge.ASK] = _split(self._ask(Conversation.of_user(_placeholder(0))), 1)[-1:]
        return delimiters

    def between(self, before: Neighbor, after: Neighbor) -> str:
        """The delimiter of two neighbors in the shortest conversation; "" if the template refuses them."""
        return self._between.get((before, after), [""])[0]

    @cached_property
    def template_tokens(self) -> tuple[str, ...]:
        """The special tokens in the delimiters; in one without any, the words that name a speaker ("User:")."""
        tokens: set[str] = set()
        for (before, after), delimiters in self._between.items():
            for delimiter in delimiters:
                found = find_special_tokens(delimiter) | {token for token in self._tokens if token in delimiter}
                if not found and before is not Edge.START and after is not Edge.END:
                    found = {line.strip() for line in delimiter.splitlines()} - {""}
                tokens |= found
        # "Assistant: User:" adds nothing to "User:".
        return tuple(sorted(one for one in tokens if not any(other in one for other in tokens - {one})))


def _placeholder(position: int) -> str:
    return f"\ue000{position}\ue001"


def _split(text: str, messages: int) -> list[str]:
    if _PLACEHOLDER.findall(text) != [_placeholder(position) for position in range(messages)]:
        raise UsageError("the chat template drops a message, repeats it, or changes its text")
    return _PLACEHOLDER.split(text)
