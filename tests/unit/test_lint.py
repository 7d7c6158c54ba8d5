# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`make lint`, as tests: `make test` starts with its first test, and has one summary."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("codespell",),
        ("pyright", "--pythonpath", sys.executable),
    ],
    ids=["ruff-check", "ruff-format", "codespell", "pyright"],
)
def test_lint(command: tuple[str, ...], repo_root: Path) -> None:
    tool = Path(sys.executable).parent / command[0]
    if not tool.exists():
        pytest.skip(f"{command[0]} is not installed; the extra dev brings it")
    done = subprocess.run([tool, *command[1:]], cwd=repo_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
