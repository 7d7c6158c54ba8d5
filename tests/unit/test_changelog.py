# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The changelog's table of faults names tests that are there."""

import re
from pathlib import Path

import pytest

_ROW = re.compile(r"^\| ([A-D]\d+) \| .+ \| (.+) \|$", re.MULTILINE)
_TESTS = Path(__file__).resolve().parents[1]
_ROWS = _ROW.findall((_TESTS.parent / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_each_fault_has_one_row() -> None:
    ids = [name for name, _ in _ROWS]
    assert len(ids) == len(set(ids)) == 42


@pytest.mark.parametrize(("name", "files"), _ROWS)
def test_each_file_of_a_row_has_a_test_with_its_id(name: str, files: str) -> None:
    named = re.compile(rf"def test_(\w+_)?{name.lower()}_")
    for file in files.split(", "):
        assert named.search((_TESTS / f"{file}.py").read_text(encoding="utf-8")), file
