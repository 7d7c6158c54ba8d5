# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How commands show text and tables: with colours on a terminal, as plain lines elsewhere."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nemo_aligner_cai.console.printable import printable, redacted

_WIDE = 160
"""Columns off a terminal: whatever reads it there need not fit a screen."""


class _Console(Console):
    """A console to which every `str` is data: nothing in it is markup or an emoji, nothing acts on the terminal.

    Our own styles are `Text`, made of `printable` strings.
    """

    def render_str(self, text: str, **settings: Any) -> Text:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Render a string: one that is printed, a cell, a heading or a rule's title."""
        plain: dict[str, Any] = settings | {"markup": False, "emoji": False, "highlight": False}
        return super().render_str(printable(redacted(text), keep="\n\t"), **plain)


def write_line(text: str, *, keep: str = "") -> None:
    """Write a text to standard output as one line, but for the line ends that are to be kept."""
    sys.stdout.write(printable(redacted(text), keep=keep) + "\n")


def note_line(text: str) -> None:
    """Write one line to standard error, whatever is in the text."""
    sys.stderr.write(printable(redacted(text)) + "\n")


def open_console() -> Console:
    """The process's standard output."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> Table:
    """A table. Cells are data, never markup; columns of figures are those with a heading, but for the first."""
    table = Table(box=None, title=Text(printable(title)), title_justify="left", pad_edge=False)
    for number, column in enumerate(columns):
        figures = bool(number and column)
        table.add_column(Text(printable(column)), justify="right" if figures else "left", no_wrap=not number)
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    return table
