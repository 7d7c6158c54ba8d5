# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The directive ``commands``: every command and flag of `cai`, from its parsers.

Input:  .. commands::
Output: a section for each command, with its usage and an ``option`` for each argument, its default included
"""

import argparse
import importlib
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from nemo_aligner_cai.cli import COMMANDS
from nemo_aligner_cai.commands.common.parser import Parser

_WIDTH = 100


class Commands(SphinxDirective):
    """Inserts the reference of all commands."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Parse the generated text in place of the directive."""
        lines = [line for name in COMMANDS for line in _command(_parser(name))]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def _parser(name: str) -> Parser:
    module, help_text = COMMANDS[name]
    parser = Parser(prog=f"cai {name}", description=f"{help_text[0].upper()}{help_text[1:]}.")
    importlib.import_module(f"nemo_aligner_cai.commands.{module}").add_arguments(parser)
    return parser


def _command(parser: argparse.ArgumentParser, depth: int = 0) -> Iterator[str]:
    """Yield the RST of a command and of its subcommands."""
    title = parser.prog
    yield from (title, "-~"[min(depth, 1)] * len(title), "")
    yield from (_text(parser.description or ""), "")
    yield from (".. code-block:: text", "")
    formatter = argparse.HelpFormatter(parser.prog, width=_WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    yield from (f"   {line}" for line in formatter.format_help().splitlines())
    yield from ("", f".. program:: {parser.prog}", "")
    subcommands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in parser._actions:
        if action in subcommands or action.help == argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        yield from _argument(parser, action)
    for action in subcommands:
        for child in dict.fromkeys(action.choices.values()):
            yield from _command(child, depth + 1)


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Iterator[str]:
    value = parser._get_formatter()._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    names = action.option_strings or [str(action.metavar or action.dest)]
    shown = ", ".join(f"{name} {value}".strip() if action.option_strings else name for name in names)
    help_text = (action.help or "") % {**vars(action), "prog": parser.prog} if action.help else ""
    yield from (f".. option:: {shown}", "", f"   {_text(help_text)}", "")
    if action.required and action.option_strings:
        yield from ("   Required.", "")
    elif action.default not in (None, argparse.SUPPRESS, False, "", [], ()) and "default" not in help_text:
        shown = str(action.default)
        # Blanks at the ends would not be seen, and RST does not take them.
        yield from (f"   Default: ``{shown if shown == shown.strip() and shown.isprintable() else repr(shown)}``.", "")


def _text(text: str) -> str:
    """Escape what RST would read as markup."""
    return " ".join(text.replace("\\", "\\\\").replace("*", "\\*").replace("|", "\\|").replace("_", "\\_").split())


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"version": "1", "parallel_read_safe": True}
