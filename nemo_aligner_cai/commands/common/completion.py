# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Shell completion: the script that completes the words of `cai` in a shell.

The script is static, so that a press of the tab key starts no Python. It holds the commands and flags of this version
and of the installed components.
"""

import importlib
from pathlib import Path
from typing import Any

from nemo_aligner_cai import extras
from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.registry import components

SHELLS = ("bash", "zsh")
_COMPONENTS = {"FORMAT": "formats", "STRATEGY": "judges"}
"""Placeholder of a value -> the kind of component that it names."""


def completion_script(root: Parser, shell: str) -> str:
    """Return the script of a parser, which is changed; values that are neither choices nor numbers may be files.

    Raises:
        UsageError: shtab, which writes the script, is not installed.
    """
    extras.require("cai --print-completion", ("shtab",), "completion")
    shtab: Any = importlib.import_module("shtab")
    for parser in root.walk():
        for action in parser.arguments:
            if (kind := _COMPONENTS.get(str(action.metavar))) is not None:
                action.choices = list(components(kind))
            elif action.nargs != 0 and action.choices is None and action.type in (None, Path):
                setattr(action, "complete", shtab.FILE)  # noqa: B010 - shtab's attribute, unknown to argparse
    return shtab.complete(root, shell=shell)
