# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The messages in docs/troubleshooting.rst are those that the commands print."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.files import write_jsonl

_BLOCK = re.compile(r"\.\. code-block:: console\n\n((?:   .*\n)+)")
_CONSTITUTION = """name: mine
principles:
  - id: kind
    critique: "Is it kind?"
    revision: "Make it kind."
    judge: "Which is kinder?"
  - id: honest
    crtique: "Is it honest?"
    revision: "Make it honest."
    judge: "Which is more honest?"
"""


def shown(repo_root: Path) -> list[tuple[list[str], str]]:
    """The words of each command on the page, and what it prints."""
    text = (repo_root / "docs" / "troubleshooting.rst").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block).partition("\n") for block in _BLOCK.findall(text)]
    return [(shlex.split(command.removeprefix("$ ")), output) for command, _, output in blocks]


@pytest.mark.slow
def test_each_message_is_what_its_command_prints(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra")
    monkeypatch.chdir(tmp_path)
    write_jsonl("prompts.jsonl", [{"prompt": "How do I steal?"}, {"prompt": 3}])
    write_jsonl("red_team.jsonl", [{"prompt": "How do I steal?"}])
    Path("principles.yaml").write_text(_CONSTITUTION, encoding="utf-8")
    shutil.copy(packaged_files.QUICKSTART, "run.yaml")
    commands = shown(repo_root)
    assert len(commands) >= 5
    for (program, *words), output in commands:
        assert program == "cai"
        done = subprocess.run(
            [sys.executable, "-m", "nemo_aligner_cai.cli", *words],
            env=os.environ | {"PYTHONPATH": str(repo_root)},
            stderr=subprocess.PIPE,
            text=True,
        )
        printed = [line for line in done.stderr.splitlines() if not line.startswith("[cai]")]
        assert (done.returncode in (1, 2), printed) == (True, output.splitlines()), words
