# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands that the README and the docs print."""

import re
import shlex
import textwrap
from pathlib import Path


def commands_of(page: Path) -> list[list[str]]:
    """The commands in a page's blocks of shell code, in words, in their order."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    else:
        blocks = [textwrap.dedent(block) for block in re.findall(r"\.\. code-block:: bash\n\n((?:   .*\n|\n)+)", text)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line) for line in lines if line.strip()]


def blocks_of(page: Path, languages: str = "bash|python") -> list[tuple[str, str]]:
    """(language, text) of a page's blocks of code in some languages, in their order."""
    pattern = rf"\.\. code-block:: ({languages})\n\n((?:   .*\n|\n)+)"
    found = re.findall(pattern, page.read_text(encoding="utf-8"))
    return [(language, textwrap.dedent(block)) for language, block in found]
