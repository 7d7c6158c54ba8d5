# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Escapes untrusted text for terminals and logs, and redacts secrets.

Model output, rows, file names, flags and server errors can contain escape sequences that rewrite a screen,
bidirectional overrides that reverse text, and zero-width characters that hide words.
"""

import logging
import re

_UNSAFE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 control characters, DEL
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, overrides and isolates
    "\xad\u034f\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb"  # zero-width
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # invisible letters
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # zero-width; tags, which can encode text
    "\ud800-\udfff"  # surrogates: half of a pair, or bytes of a file name that is not UTF-8
    "]"
    # Joiners are part of emoji and of words in some scripts; next to ASCII or at the edge of a line they only hide.
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
    # A variation selector belongs to the character before it; a sequence of them can encode text.
    "|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]"
)

_UNSAFE_ASCII = re.compile("[\x00-\x1f\x7f]")
"""The part of `_UNSAFE` that ASCII text can match; three times as fast."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape the characters that could act on a terminal or hide text, in Python's notation: ``\x1b``, ``\u202e``.

    Args:
        text: any text.
        keep: characters that are not escaped; ``"\n\t"`` for a text of several lines.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def with_symbols(text: str, *, keep: str = "") -> str:
    r"""Replace the characters that `printable` escapes by visible symbols: U+241B for ESC, ``⟪202E⟫`` for U+202E.

    Args:
        text: any text.
        keep: characters that stay as they are.
    """
    unsafe = _UNSAFE_ASCII if text.isascii() else _UNSAFE
    return unsafe.sub(lambda match: match[0] if match[0] in keep else _symbol(match[0]), text)


def _symbol(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode's pictures of control characters
    return "\u2421" if code == 0x7F else f"\u27ea{code:04X}\u27eb"


_LONGEST_LINE = 2_000
"""Characters of a line of an error or a note: file and line are at its beginning, the fix is at its end."""
_HEAD = 0.7
"""Share of a shortened text that is from its beginning; the rest is from its end."""


def shortened(text: str, limit: int = _LONGEST_LINE, gap: str = " ") -> str:
    """A text of at most about `limit` characters, with a note between two `gap` in place of its middle."""
    if len(text) <= limit:
        return text
    head = int(limit * _HEAD)
    tail = limit - head
    return f"{text[:head]}{gap}[... {len(text) - limit} characters omitted ...]{gap}{text[len(text) - tail :]}"


_SECRETS: set[str] = set()
_MIN_SECRET_LENGTH = 4
"""Shorter secrets are not redacted, since they are parts of other words."""
_URL_USER = re.compile(r"(?<=://)[^/?#\s]+@")


def hide_secret(secret: str) -> None:
    """Redact a secret in every later error and log line of this process."""
    if len(secret) >= _MIN_SECRET_LENGTH:
        _SECRETS.add(secret)


def redacted(text: str) -> str:
    """The text without secrets, and without users and passwords in URLs."""
    for secret in sorted(_SECRETS, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL_USER.sub("***@", text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class PrintableFormatter(logging.Formatter):
    """Escapes log records: each is one line, with its traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the record's line."""
        return printable(redacted(super().formatMessage(record)))

    def formatException(self, ei: "logging._SysExcInfoType") -> str:  # pyright: ignore[reportPrivateUsage]
        """Format the record's traceback."""
        return printable(redacted(super().formatException(ei)), keep="\n\t")


def error_line(error: BaseException | str) -> str:
    """The error message of every program. Further lines are indented: untrusted text cannot forge another message."""
    first, *details = map(shortened, printable(redacted(str(error)), keep="\n\t").split("\n"))
    return "\n  ".join([f"cai: {first}", *details]) + "\n"
