# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The directive ``messages``: every message of the package's exceptions, from its source.

Input:  raise UsageError(f"{path} does not exist")
Output: an entry "{path} does not exist" under the name of the module
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

import nemo_aligner_cai

_ROOT = Path(nemo_aligner_cai.__file__).parent
_ERRORS = ("CaiError", "UsageError", "FormatError", "RowError", "StageIncomplete", "ServerRefused", "CallFailed")


class Messages(SphinxDirective):
    """Inserts the list of all messages."""

    def run(self) -> list[nodes.Node]:
        """Build the lists."""
        made: list[nodes.Node] = []
        for path in sorted(_ROOT.rglob("*.py")):
            if found := list(dict.fromkeys(_messages(path))):
                made.append(nodes.paragraph("", "", nodes.strong(text=".".join(path.relative_to(_ROOT).parts)[:-3])))
                items = [nodes.list_item("", nodes.paragraph("", "", nodes.literal(text=text))) for text in found]
                made.append(nodes.bullet_list("", *items))
        return made


def _messages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not _name(node.func).startswith(_ERRORS):
            continue
        texts = [text for argument in node.args if (text := _text(argument))]
        if texts:
            yield max(texts, key=len)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else _name(node.value) if isinstance(node, ast.Attribute) else ""


def _text(node: ast.expr) -> str:
    """The text of a string, an f-string or a sum of them; values are in braces. Empty for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else _value(part.value)
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + (_text(node.right) or _value(node.right))
    return ""


def _value(node: ast.expr) -> str:
    """The name of a value in braces; three dots for what is computed."""
    return f"{{{ast.unparse(node)}}}" if isinstance(node, ast.Name | ast.Attribute) else "{...}"


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("messages", Messages)
    return {"version": "1", "parallel_read_safe": True}
