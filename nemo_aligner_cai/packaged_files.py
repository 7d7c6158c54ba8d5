# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The paths of packaged files: constitutions, and the tiny assistant that ``cai tiny build`` builds."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
CONSTITUTIONS = _PACKAGE / "constitutions"
_TINY = _PACKAGE / "tiny"
MODEL = _TINY / "assistant.nemo"
TOKENIZER = _TINY / "tokenizer.model"
CONSTITUTION = _TINY / "constitution.yaml"
TINY_CONSTITUTIONS = {
    "tiny": CONSTITUTION,
    "politeness": _TINY / "politeness.yaml",
    "permits_damage": _TINY / "permits_damage.yaml",
}
"""The constitutions that the tiny assistant can follow, by the names that a run configuration may give."""
GRADER = _TINY / "refusals.yaml"
QUICKSTART = _TINY / "quickstart.yaml"
_IN_REPOSITORY = {"nemo_aligner_cai/": _PACKAGE, "examples/nlp/cai/": _PACKAGE / "examples"}
"""Where the files of a folder of the repository are, if the package is installed from its wheel."""


def installed(path: str) -> str:
    """Return the path of a file; that of its installed copy, if the documentation's path is of no file here."""
    for prefix, folder in _IN_REPOSITORY.items():
        copy = folder / path.removeprefix(prefix)
        if path.startswith(prefix) and not Path(path).exists() and copy.is_file():
            return str(copy)
    return path
