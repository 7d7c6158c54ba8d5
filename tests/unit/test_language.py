# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Code, messages and docs are in plain standard American English."""

import ast
import re
from pathlib import Path

_FIRST = ("What", "Whether", "How", "See", "As")
_AVOIDED = re.compile(
    r"\b(?:[Mm]end(?:s|ed|ing)?|anew|stands? (?:in|between)|(?:that|which|who) is none|is none of"
    r"|[Ll](?:eft|eaves?) out|[Gg]oes on|likewise|[Bb]eside|[Bb]ehaviour|[Hh]onour|[Ll]icence|[Cc]olour|learnt"
    r")\b"
)


def test_no_docstring_begins_with_a_question(repo_root: Path) -> None:
    begins = []
    for path in sorted((repo_root / "nemo_aligner_cai").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            # A string that is a statement documents what is above it: a module, a class, a function, an attribute.
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                words = node.value.value.split()
                if words and words[0].rstrip(",") in _FIRST:
                    begins.append(f"{path.relative_to(repo_root)}:{node.lineno}: {' '.join(words[:6])}")
    assert begins == []


def test_words_to_avoid(repo_root: Path) -> None:
    pages = [repo_root / "README.md", repo_root / "CONTRIBUTING.md", *(repo_root / "docs").rglob("*.rst")]
    for top in ("nemo_aligner_cai", "examples", "hydra_plugins"):
        pages += [path for path in (repo_root / top).rglob("*") if path.suffix in (".py", ".yaml", ".sh")]
    # What models are asked and taught is data.
    data = {
        repo_root / "nemo_aligner_cai" / "tiny" / "lexicon.yaml",
        *(repo_root / "nemo_aligner_cai").glob("constitutions/*"),
    }
    pages = [page for page in pages if page not in data]
    assert len(pages) > 200
    found = [
        f"{path.relative_to(repo_root)}:{number}: {line.strip()}"
        for path in sorted(pages)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _AVOIDED.search(line)
    ]
    assert found == []
