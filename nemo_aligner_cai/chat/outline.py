# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""What a template writes around messages, learnt by having it render a few short conversations.

Input:  a template's own render functions
Output: "<|im_start|>user\n" before a first user turn, "<|im_end|>\n<|im_start|>assistant\n" between it and a reply

So one parser serves every template that can be rendered, whether it is given by strings or by a Jinja program. What is
learnt is never trusted: what is made with it is rendered by the template and must come out the same.
"""

import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cached_property, reduce
from itertools import pairwise
from typing import TypeAlias

from nemo_aligner_cai.chat.markers import special_tokens
from nemo_aligner_cai.chat.messages import Conversation, Message, Role
from nemo_aligner_cai.errors import UsageError


class Edge(str, Enum):
    """Where a text starts and stops."""

    START = "start"
    END = "end"
    """Of a conversation as it is trained."""
    ASK = "ask"
    """Of a generation prompt."""


Place: TypeAlias = Role | Edge

_U, _A, _S = Role.USER, Role.ASSISTANT, Role.SYSTEM
# All neighbours that a conversation can have. A template must render the first two; many refuse some of the others.
_PROBES = ((_U,), (_U, _A), (_S, _U), (_U, _A, _U), (_U, _U), (_U, _A, _A), (_A,), (_S, _A))
_REQUIRED = 2
_TEXT_END = r"\Z"
# Characters for private use: no template has them, and none trims them.
_STAND_IN = re.compile("\ue000[0-9]\ue001")


class Outline:
    """The strings between messages, by who speaks before and after.

    Args:
        render: the text of a conversation as it is trained.
        ask: the text of a conversation that ends where the assistant is to speak.
        tokens: strings that are special tokens without looking like one, where the template writes them.
    """

    def __init__(
        self, render: Callable[[Conversation], str], ask: Callable[[Conversation], str], tokens: Iterable[str] = ()
    ) -> None:
        self._render, self._ask, self._tokens = render, ask, {token for token in tokens if token.strip()}

    @cached_property
    def joints(self) -> dict[tuple[Place, Place], list[str]]:
        """What stands between two neighbours: as a rule one text, and the first is that of the shortest conversation.

        Neighbours that the template refuses are not in it. Some templates write another thing before the last reply
        than before the others.

        Raises:
            UsageError: the template cannot render a user turn and a reply to it, or does not keep their texts.
        """
        joints: dict[tuple[Place, Place], list[str]] = {}
        for number, roles in enumerate(_PROBES):
            probe = Conversation(tuple(Message(role, _stand_in(position)) for position, role in enumerate(roles)))
            try:
                pieces = _between(self._render(probe), len(roles))
            except UsageError:
                if number < _REQUIRED:
                    raise
                continue
            for neighbours, piece in zip(pairwise((Edge.START, *roles, Edge.END)), pieces, strict=True):
                found = joints.setdefault(neighbours, [])
                if piece not in found:
                    found.append(piece)
        joints[Role.USER, Edge.ASK] = _between(self._ask(Conversation.of_user(_stand_in(0))), 1)[-1:]
        return joints

    def joint(self, before: Place, after: Place) -> str:
        """What stands between two neighbours in the shortest conversation; "" where the template refuses them."""
        return self.joints.get((before, after), [""])[0]

    @cached_property
    def markers(self) -> tuple[str, ...]:
        """The special tokens in the joints; of a joint without any, the words that tell a speaker ("User:")."""
        markers: set[str] = set()
        for (before, after), joints in self.joints.items():
            for joint in joints:
                found = special_tokens(joint) | {token for token in self._tokens if token in joint}
                if not found and before is not Edge.START and after is not Edge.END:
                    found = {line.strip() for line in joint.splitlines()} - {""}
                markers |= found
        # "Assistant: User:" adds nothing to "User:".
        return tuple(sorted(one for one in markers if not any(other in one for other in markers - {one})))

    def parse(self, text: str) -> Conversation:
        """The conversation that is rendered as `text`, which may be a generation prompt.

        Raises:
            UsageError: no conversation without the template's own tokens is, or the template does not tell where a
                turn starts.
        """
        place, position = self._start_of(text)
        messages: list[Message] = []
        while isinstance(place, Role):
            pattern, following = self._endings[place]
            found = pattern.search(text, position)
            content = text[position : found.start() if found else None]
            if found is None or self._has_marker(content):
                raise UsageError(f"character {position}: nothing ends the {place.value}'s turn that starts there")
            messages.append(Message(place, content))
            place, position = following[(found.lastindex or 0) - 1], found.end()
        conversation = Conversation(tuple(messages))
        rendered = self._ask(conversation) if place is Edge.ASK else self._render(conversation)
        if rendered != text:
            same = len(_common_start(rendered, text))
            raise UsageError(
                f"character {same}: the template has {rendered[same : same + 20]!r}, not {text[same : same + 20]!r}"
            )
        return conversation

    def pieces(self, conversation: Conversation) -> list[tuple[str, bool]]:
        """The rendered text in pieces, and whether a piece is learnt: all that a model writes of a reply.

        Raises:
            UsageError: the template does more to a text than to trim it, or writes what it writes in no short
                conversation; which text is a reply is then not known.
        """
        text = self._render(conversation)
        asked, end = self.joint(Role.USER, Edge.ASK), self.joint(Role.ASSISTANT, Edge.END)
        roles = (Edge.START, *(message.role for message in conversation.messages), Edge.END)
        starts, *joints = (self.joints.get(neighbours, [""]) for neighbours in pairwise(roles))
        before = next((start for start in starts if text.startswith(start)), None)
        if before is None:
            raise UsageError(
                f"the chat template starts with {text[:40]!r} here, and in other places with {starts[0]!r}"
            )
        pieces: list[tuple[str, bool]] = []
        position = len(before)
        for message, afters in zip(conversation.messages, joints, strict=True):
            choices = ((content, after) for content in _as_written(message) for after in _longest_first(afters))
            content, after = next((c for c in choices if text.startswith("".join(c), position)), ("", None))
            if after is None:
                raise UsageError(f"the chat template changes the {message.role.value}'s turn {message.content[:40]!r}")
            position += len(content) + len(after)
            if message.role is Role.ASSISTANT:
                header = asked if before.startswith(asked) else before
                learnt = _common_start(after, end)
                pieces += [(header, False), (before[len(header) :] + content + learnt, True)]
                before = after[len(learnt) :]
            else:
                pieces.append((before + content, False))
                before = after
        if position != len(text):
            raise UsageError(f"the chat template adds {text[position : position + 40]!r} to this conversation")
        return [*pieces, (before, False)]

    def _start_of(self, text: str) -> tuple[Role, int]:
        for after, joint in self._starts:
            if text.startswith(joint):
                return after, len(joint)
        wanted = " or ".join(dict.fromkeys(repr(joint) for _, joint in self._starts))
        raise UsageError(f"must start with {wanted}, it starts with {text[:20]!r}")

    @cached_property
    def _starts(self) -> list[tuple[Role, str]]:
        starts = [(Role(after), joint) for after, joint in self._told(Edge.START, Role.ASSISTANT)]
        # With a default system message, a text without a system turn has the longer start.
        return sorted(starts, key=lambda start: -len(start[1]))

    @cached_property
    def _endings(self) -> dict[Role, tuple[re.Pattern[str], list[Place]]]:
        """By who speaks: a pattern with a group for each text that can follow, and what follows there."""
        endings: dict[Role, tuple[re.Pattern[str], list[Place]]] = {}
        for role in Role:
            told = self._told(role, role)
            # The end of the text before anything else, then the longest, which may start like the others.
            told.sort(key=lambda pair: (isinstance(pair[0], Role), -len(pair[1])))
            # What all of them start with is searched for as a whole, letter by letter only from there.
            start = reduce(_common_start, (joint for _, joint in told)) if told else ""
            groups = [
                f"({re.escape(joint[len(start) :])}{'' if isinstance(after, Role) else _TEXT_END})"
                for after, joint in told
            ]
            pattern = re.escape(start) + f"(?:{'|'.join(groups)})" if told else r"(?!)"
            endings[role] = re.compile(pattern), [after for after, _ in told]
        for before, after in ((Role.USER, Role.ASSISTANT), (Role.ASSISTANT, Role.USER)):
            if (before, after) in self.joints and after not in endings[before][1]:
                raise UsageError(f"the chat template does not tell where the {after.value}'s turn starts")
        return endings

    def _told(self, before: Place, rare: Role) -> list[tuple[Place, str]]:
        """What can follow and is no text of a message; a rare turn only where nothing else reads like it."""
        pairs = [(after, joint) for (place, after), found in self.joints.items() if place is before for joint in found]
        if before is not Edge.START:
            pairs = [(after, joint) for after, joint in pairs if isinstance(after, Edge) or self._has_marker(joint)]
        usual = [pair for pair in pairs if pair[0] is not rare]
        turns = [pair for pair in usual if isinstance(pair[0], Role)]
        return [*usual, *(pair for pair in pairs if pair[0] is rare and not any(self._alike(pair, o) for o in turns))]

    def _alike(self, one: tuple[Place, str], other: tuple[Place, str]) -> bool:
        """Whether the longer text can be read as the shorter one and the start of a message, or an empty message."""
        (place, short), (_, long) = sorted((one, other), key=lambda pair: len(pair[1]))
        rest = long[len(short) :]
        # Where "</s>User: " starts a user's turn and "</s>" a second reply, a second reply could start with "User: ".
        following = [
            joint
            for (before, after), found in self.joints.items()
            if before is place and isinstance(after, Role)
            for joint in found
        ]
        empty = any(joint.startswith(rest) or rest.startswith(joint) for joint in following)
        return long.startswith(short) and (empty or not self._has_marker(rest))

    def _has_marker(self, text: str) -> bool:
        return any(marker in text for marker in self.markers)


def _stand_in(position: int) -> str:
    return f"\ue000{position}\ue001"


def _between(text: str, messages: int) -> list[str]:
    pieces = _STAND_IN.split(text)
    if _STAND_IN.findall(text) != [_stand_in(position) for position in range(messages)]:
        raise UsageError("the chat template leaves out a message, repeats it, or changes its text")
    return pieces


def _common_start(one: str, other: str) -> str:
    length = min(len(one), len(other))
    return one[: next((at for at in range(length) if one[at] != other[at]), length)]


def _longest_first(texts: Iterable[str]) -> list[str]:
    return sorted(texts, key=len, reverse=True)


def _as_written(message: Message) -> tuple[str, str]:
    # Templates that change a text trim it.
    return message.content, message.content.strip()
