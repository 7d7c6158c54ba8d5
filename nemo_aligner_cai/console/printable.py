# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Untrusted text on a terminal or in a log: what could act on a terminal, or hide text, is shown as an escape.

Model output, rows, file names, flags, server errors: all of them can hold escape sequences that recolor or rewrite a
screen, bidirectional overrides that reverse what a reader sees, and characters without width that hide words.
"""

import logging
import re

_UNSAFE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 control characters, DEL
    "\u2028\u2029"  # line and paragraph separators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, overrides and isolates
    "\xad\u034f\u180b-\u180f\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb"  # without width
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters without a shape
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # without width; tags, which can spell a text
    "\ud800-\udfff"  # half a character: a file name that is not UTF-8, or half of a pair
    "]"
    # Joiners belong into words of some scripts and into emoji; next to ASCII, a line's start or end they only hide.
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
    # A variation selector belongs to the character before it; one after another can spell a text.
    "|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]"
)


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape the characters that could act on a terminal or hide text, as Python spells them: ``\x1b``, ``\u202e``.

    Args:
        text: the text, trusted or not.
        keep: characters to leave as they are; ``"\n\t"`` for a text of several lines.
    """
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


_SECRETS: set[str] = set()
_LEAST_SECRET = 4
"""Characters from which a secret is looked for: shorter ones are parts of other words."""
_USER_OF_ADDRESS = re.compile(r"(?<=://)[^/?#\s]+@")


def hide_secret(secret: str) -> None:
    """Let `redacted` replace a secret from now on, and with it every error and log line of this process."""
    if len(secret) >= _LEAST_SECRET:
        _SECRETS.add(secret)


def redacted(text: str) -> str:
    """The text without the secrets that this process was told of, and without users and passwords in addresses."""
    for secret in sorted(_SECRETS, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _USER_OF_ADDRESS.sub("***@", text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class PrintableFormatter(logging.Formatter):
    """Log lines in which nothing acts on a terminal: one record is one line, but for a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the record's line."""
        return printable(redacted(super().formatMessage(record)))

    def formatException(self, ei: "logging._SysExcInfoType") -> str:  # pyright: ignore[reportPrivateUsage]
        """Format the traceback below it."""
        return printable(redacted(super().formatException(ei)), keep="\n\t")


def error_line(name: str, error: BaseException | str) -> str:
    """The line that tells of an error, after the name of the program; details below it are indented.

    A line end in a message is text from elsewhere, or our own details: indented, it cannot pass for a line of ours.
    """
    first, *details = printable(redacted(str(error)), keep="\n\t").split("\n")
    return "\n  ".join([f"{name}: {first}", *details]) + "\n"
