# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
