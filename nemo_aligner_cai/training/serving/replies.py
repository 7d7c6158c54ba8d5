# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
r"""Replies from generated text: their end, their finish reason, and the part that can be streamed so far.

Input:  "i will help\n<extra_id_1>User", stopped by "<extra_id_1>"
Output: Reply("i will help", "stop")
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nemo_aligner_cai.chat import ChatTemplate

_UNFINISHED = "\ufffd"
"""The decoded form of an incomplete character."""


@dataclass(frozen=True)
class Reply:
    """A finished reply; `finish_reason` is "stop" or "length"."""

    text: str
    finish_reason: str


@dataclass(frozen=True)
class Ending:
    """The strings at which a reply ends.

    Attributes:
        stops: those of the request.
        template: the chat template; None for completions.
    """

    stops: tuple[str, ...]
    template: ChatTemplate | None = None

    @property
    def strings(self) -> tuple[str, ...]:
        """All stop strings."""
        return tuple(dict.fromkeys((*self.stops, *(self.template.stop if self.template else ()))))

    def reply(self, text: str, *, ended: bool) -> Reply:
        """The reply in a generated text. `ended` is True if there was an end token, at which `text` ends."""
        template = self.template
        own = _first(text, self.stops)
        turn = _first(text, template.stop) if template else None
        start = template.reply_start if template else ""
        if own is not None and (turn is None or own < turn):
            return Reply(text[:own].removeprefix(start), "stop")
        if template is not None and (ended or turn is not None):
            return Reply(template.trim_reply(text), "stop")
        return Reply(text.removeprefix(start), "stop" if ended else "length")


class Stream:
    """Streams a reply; holds back text that may be the beginning of its end."""

    def __init__(self, ending: Ending) -> None:
        template = ending.template
        turn = template.end_of_turn if template else ""
        stops = template.stop if template else ()
        self._start = template.reply_start if template else ""
        self._held = tuple({*ending.stops, *stops, *(turn + stop for stop in stops), turn, _UNFINISHED} - {""})
        self._ending = ending
        self._sent = ""

    def feed(self, text: str) -> str:
        """The next piece, given all generated text; "" if there is none yet."""
        if len(text) < len(self._start):
            return ""
        text = self._ending.reply(text, ended=False).text
        longest = max((_overlap(text, string) for string in self._held), default=0)
        return self._next(text[: len(text) - longest])

    def finish(self, reply: Reply) -> str:
        """The last piece of a finished reply."""
        return self._next(reply.text)

    def _next(self, text: str) -> str:
        if not text.startswith(self._sent):
            # The beginning is decoded differently now, but it has been sent.
            return ""
        piece, self._sent = text[len(self._sent) :], text
        return piece


def _first(text: str, strings: Iterable[str]) -> int | None:
    return min((found for found in map(text.find, strings) if found >= 0), default=None)


def _overlap(text: str, string: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `string`."""
    most = min(len(text), len(string))
    return next((size for size in range(most, 0, -1) if text.endswith(string[:size])), 0)
