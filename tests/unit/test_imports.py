# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The order of the folders: each imports only what comes before it, and no two modules import each other."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

PACKAGE = "nemo_aligner_cai"
# A folder, or a module where a folder's modules have different places; the longest name that fits a module counts.
ORDER = [
    "errors",
    "extras",
    "packaged_files",
    "console",
    "files",
    "sections",
    "registry",
    "chat",
    "models",
    "constitution",
    "prompts",
    "data",
    "engine",
    "judges",
    "stages",
    "evaluation",
    "training.config",
    "training.checkpoints",
    "training.checks",
    "training.cpu",
    "training.launch",
    "training.serving",
    "training",
    "pipeline.records",
    "report",
    "tiny",
    "planning.config",
    "pipeline",
    "planning",
    "commands",
    "cli",
]


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of this package that a file names, in import statements or in strings for importlib."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{name.name}" for name in node.names}
            found |= whole if whole & modules else {node.module}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= set(re.findall(rf"{PACKAGE}[\w.]+", ast.unparse(node)))
    return found & modules


@pytest.fixture(scope="module")
def paths(repo_root: Path) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(repo_root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (repo_root / PACKAGE).rglob("*.py")
    }


@pytest.fixture(scope="module")
def graph(paths: dict[str, Path]) -> dict[str, set[str]]:
    return {module: imported(path, set(paths)) - {module} for module, path in paths.items()}


def place(module: str) -> int:
    name = module.removeprefix(PACKAGE).removeprefix(".")
    fitting = [one for one in ORDER if name == one or name.startswith(f"{one}.")]
    assert fitting, f"{module} has no place in the order of the folders"
    return ORDER.index(max(fitting, key=len))


def test_a_folder_imports_only_what_comes_before_it(graph: dict[str, set[str]]) -> None:
    assert not [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if other != PACKAGE and place(other) > place(module)
    ]


def test_no_two_modules_import_each_other(graph: dict[str, set[str]]) -> None:
    list(graphlib.TopologicalSorter(graph).static_order())


def test_a_name_is_imported_from_the_module_that_defines_it(paths: dict[str, Path]) -> None:
    imports = [
        (module, node.module, name)
        for module, path in paths.items()
        if path.name != "__init__.py"
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]
    passed_on = {(module, name.asname or name.name) for module, _, name in imports}
    assert not [
        f"{module}: {name.name} from {other}" for module, other, name in imports if (other, name.name) in passed_on
    ]
