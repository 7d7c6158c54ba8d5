# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Paths that README, CONTRIBUTING and the docs name exist; links lead to a file or look like an address."""

import re
from pathlib import Path
from urllib.parse import urlsplit

TOP = ("nemo_aligner_cai", "examples", "docs", "tests", "benchmarks", "constraints", "hydra_plugins")


def test_every_path_in_the_docs_exists(repo_root: Path) -> None:
    pages = [repo_root / "README.md", repo_root / "CONTRIBUTING.md", *(repo_root / "docs").rglob("*.rst")]
    named = [
        (page.name, path)
        for page in pages
        for path in re.findall(r"(?<=`)[\w.-]+(?:/[\w.-]+)*/?(?=`)", page.read_text(encoding="utf-8"))
        if path.startswith(tuple(f"{top}/" for top in TOP))
        or re.match(r"(commands|data|engine|errors|judges|pipeline|registry|stages|training)[/.].*\.py$", path)
    ]
    assert len(named) > 40
    missing = [
        f"{page}: {path}"
        for page, path in named
        if not (repo_root / path).exists() and not (repo_root / "nemo_aligner_cai" / path).exists()
    ]
    assert missing == []


def test_each_function_of_the_walk_is_in_its_file(repo_root: Path) -> None:
    walk = (repo_root / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Follow one prompt")[2]
    rows = re.findall(r"^\| [^|]+ \| (`[^|]+) \| (`[^|]+) \|$", walk.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 10
    for files, functions in rows:
        code = "".join((repo_root / "nemo_aligner_cai" / file).read_text() for file in re.findall(r"`([^`]+)`", files))
        for name in re.findall(r"[`.](\w+)(?=[`.])", functions):
            assert re.search(rf"\b(def|class) {name}\b", code), f"{name} is not in {files}"


def test_every_link_leads_to_a_file_or_has_the_form_of_an_address(repo_root: Path) -> None:
    pages = [repo_root / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    pages += [page for page in (repo_root / "docs").rglob("*.rst") if "generated" not in page.parts]
    links = [
        (page, inline or external)
        for page in pages
        for inline, external in re.findall(r"\]\(([^)\s]+)\)|<(https?://[^>]*)>`_", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 20
    broken = [
        f"{page.name}: {link}"
        for page, link in links
        if not (
            re.fullmatch(r"[\w-]+(\.[\w-]+)+", urlsplit(link).netloc)
            if "://" in link
            else (page.parent / link.partition("#")[0]).exists()
        )
    ]
    assert broken == []
