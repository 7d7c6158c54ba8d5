# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The directives ``commands`` and ``exit-codes``: every command and flag of `cai`, from its parsers.

Input:  .. commands::
Output: a section for each command, with its usage, the examples and texts of its help, and an ``option`` for each
        argument, its default included
"""

import argparse
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from nemo_aligner_cai.cli import complete_parser
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.errors import EXIT_CODES


class Commands(SphinxDirective):
    """Inserts the reference of all commands."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Parse the generated text in place of the directive."""
        lines = [line for command in _subcommands(complete_parser()) for line in _command(command)]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


class ExitCodes(SphinxDirective):
    """Inserts the table of exit codes."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Parse the generated table in place of the directive."""
        rows = [f"   * - {code}\n     - {_text(meaning)}" for code, meaning in EXIT_CODES.items()]
        return self.parse_text_to_nodes("\n".join([".. list-table::", "   :widths: 10 90", "", *rows]))


def _subcommands(parser: Parser) -> list[Parser]:
    actions = [action for action in parser.arguments if isinstance(action, argparse._SubParsersAction)]
    return [child for action in actions for child in action.choices.values()]


def _command(parser: Parser, depth: int = 0) -> Iterator[str]:
    """Yield the RST of a command and of its subcommands."""
    title = parser.prog
    yield from (title, "-~"[min(depth, 1)] * len(title), "")
    yield from (_text(parser.description or ""), "")
    yield from _block(parser.format_usage().removeprefix("usage: "))
    yield from (_block(parser.epilog) if "\n" in (parser.epilog or "") else (_text(parser.epilog or ""), ""))
    yield from _block("\n".join(parser.examples), "bash")
    yield from (f".. program:: {parser.prog}", "")
    for action in parser.arguments:
        if not isinstance(action, argparse._SubParsersAction) and "--help" not in action.option_strings:
            yield from _argument(parser, action)
    for child in _subcommands(parser):
        yield from _command(child, depth + 1)


def _block(text: str, language: str = "text") -> Iterator[str]:
    yield from (f".. code-block:: {language}", "")
    yield from (f"   {line}" for line in text.splitlines())
    yield ""


def _argument(parser: Parser, action: argparse.Action) -> Iterator[str]:
    formatter = parser._get_formatter()
    value = formatter._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    names = action.option_strings or [str(action.metavar or action.dest)]
    shown = ", ".join(f"{name} {value}".strip() if action.option_strings else name for name in names)
    yield from (f".. option:: {shown}", "", f"   {_text(formatter._expand_help(action))}", "")


def _text(text: str) -> str:
    """Escape what RST would read as markup."""
    return " ".join(text.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("_", "\\_").split())


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("commands", Commands)
    app.add_directive("exit-codes", ExitCodes)
    return {"version": "1", "parallel_read_safe": True}
