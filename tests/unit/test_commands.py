# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands are thin: argparse's namespaces stay in commands/, and their functions are short."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_aligner_cai.cli import COMMANDS
from nemo_aligner_cai.commands.common.parser import Parser

MOST_LINES = 40


def functions_over_namespaces(root: Path) -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                argument.annotation is not None and "Namespace" in ast.unparse(argument.annotation)
                for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
            ):
                yield path, node


def test_only_commands_receive_a_namespace_and_their_functions_are_short(repo_root: Path) -> None:
    package = repo_root / "nemo_aligner_cai"
    found = list(functions_over_namespaces(package))
    assert len(found) > 20, "the search itself works"
    for path, node in found:
        where = f"{path.relative_to(package)}: {node.name}"
        assert path.is_relative_to(package / "commands"), where
        assert node.end_lineno is not None and node.end_lineno - node.lineno < MOST_LINES, where


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_declares_documented_arguments(name: str) -> None:
    module = importlib.import_module(f"nemo_aligner_cai.commands.{COMMANDS[name][0]}")
    parser = Parser()
    module.add_arguments(parser)
    assert callable(module.run) and parser.format_help()
