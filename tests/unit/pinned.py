# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Read the files of constraints/ as pip does on one version of Python."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHONS = ("3.10", "3.11", "3.12")
FOLDER = Path(__file__).resolve().parents[2] / "constraints"


def pinned(file: str, python: str) -> dict[str, str]:
    """Return the version of each distribution that ``file`` holds for ``python``, by canonical name."""
    found: dict[str, str] = {}
    for requirement, _ in _read(file, python):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        name = canonicalize_name(requirement.name)
        assert name not in found, f"{name} is pinned twice for Python {python}"
        found[name] = specifier.version
    return found


def hashed(file: str, python: str) -> dict[str, set[str]]:
    """Return the hashes of each distribution that ``file`` holds for ``python``, by canonical name."""
    return {canonicalize_name(requirement.name): hashes for requirement, hashes in _read(file, python)}


def _read(file: str, python: str) -> list[tuple[Requirement, set[str]]]:
    here = {"python_version": python, "python_full_version": f"{python}.20"}
    here |= {"sys_platform": "linux", "platform_machine": "x86_64", "implementation_name": "cpython"}
    found: list[tuple[Requirement, set[str]]] = []
    for line in (FOLDER / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            text, *hashes = line.split(" --hash=sha256:")
            assert all(re.fullmatch(r"[0-9a-f]{64}", sha256) for sha256 in hashes), line
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(here):
                found.append((requirement, set(hashes)))
    return found
