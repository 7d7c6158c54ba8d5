# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Terminal output of the commands: colors on a terminal, plain lines elsewhere."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nemo_aligner_cai.console.printable import PrintableFormatter, printable, redacted, shortened

_WIDTH = 160
"""Columns if standard output is not a terminal."""
_LONGEST_CELL = 1_000
"""Characters of a cell: a name or a value in a data file may be a megabyte."""


class _Console(Console):
    """A console that treats every `str` as data: no markup, no emoji, no control characters.

    Our own styles are `Text` objects made of `printable` strings.
    """

    def render_str(self, text: str, **settings: Any) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Render a printed string, a cell, a heading or the title of a rule."""
        plain: dict[str, Any] = settings | {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(printable(redacted(text), keep="\n\t"), **plain)


def write_line(text: str, *, keep: str = "") -> None:
    """Write one line to standard output. Control characters are escaped, except those in `keep`."""
    sys.stdout.write(printable(redacted(text), keep=keep) + "\n")


def note_line(text: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(shortened(printable(redacted(text))) + "\n")


def log_to_stderr() -> None:
    """Show log lines on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def open_console() -> Console:
    """Return a console on standard output."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[object]], *, words: bool = False) -> Table:
    """Build a table. Columns with a heading are right-aligned, except the first; `words` aligns all of them left."""
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for number, column in enumerate(columns):
        justify = "right" if number and column and not words else "left"
        table.add_column(_cell(column), justify=justify, no_wrap=not number)
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(content: object) -> Text:
    return Text(printable(shortened(str(content), _LONGEST_CELL)))


def rate_cell(rate: object) -> str:
    """Format a rate as a table cell; ``-`` if there is none."""
    return "-" if rate is None else str(rate)
