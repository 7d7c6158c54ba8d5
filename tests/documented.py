# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The commands that the README and the docs print."""

import re
import shlex
import textwrap
from pathlib import Path
from typing import NamedTuple


class Shown(NamedTuple):
    """A command of a page in words, and the lines that the page says it prints; None if it shows none."""

    words: list[str]
    output: list[str] | None = None


def blocks_of(page: Path, languages: str = "bash|python") -> list[tuple[str, str]]:
    """(language, text) of a page's blocks of code in some languages, in their order."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        return re.findall(rf"```({languages})\n(.*?)```", text, re.DOTALL)
    found = re.findall(rf"^\.\. code-block:: ({languages})\n\n((?:   .*\n|\n)+)", text, re.MULTILINE)
    return [(language, textwrap.dedent(block)) for language, block in found]


def shown_by(page: Path) -> list[Shown]:
    """The commands in a page's blocks `bash` and, after "$ " and with their output, `console`, in their order."""
    shown: list[Shown] = []
    for language, block in blocks_of(page, "bash|console"):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "bash":
            shown += [Shown(shlex.split(line)) for line in lines if line.strip()]
            continue
        for line in lines:
            if line.startswith("$ "):
                shown.append(Shown(shlex.split(line[2:], comments=True), []))
            elif (output := shown[-1].output) is not None and (line or output):
                output.append(line)
    return shown


def commands_of(page: Path) -> list[list[str]]:
    """The commands in a page's blocks `bash`, in words, in their order."""
    return [one.words for one in shown_by(page) if one.output is None]


def is_shown(printed: list[str], output: list[str]) -> bool:
    """True if a page's output is what was printed; "..." stands for any text, alone on a line for any lines."""
    shown = [re.escape(line.rstrip()).replace(r"\.\.\.", ".*") for line in output if line.strip()]
    pattern = "\n".join("(?s:.*)" if line == ".*" else line for line in shown)
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed if line.strip())) is not None
