# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Bodies with millions of wrong items give one error, in little memory (B7, C3)."""

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import sys
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.models.nemo_server import _Columns
from nemo_aligner_cai.training.serving.calls import GenerateCall
from tests.unit.peak_memory import peak_memory
try:
    if sys.argv[1] == "request":
        GenerateCall.parse({"sentences": ["a"], "tokens_to_generate": 1, "end_strings": [1] * 3_000_000})
    elif sys.argv[1] == "keys":
        GenerateCall.parse({"sentences": ["a"], **{f"key{number}": 1 for number in range(300_000)}})
    else:
        _Columns.model_validate({"sentences": [], "tokens": [[1] * 2_000_000], "token_ids": []})
except (CaiError, ValueError) as error:
    print(len(str(error)) < 3000)
print(peak_memory())
"""


@pytest.mark.parametrize("kind", ["request", "keys", "response"])
def test_b7_c3_a_list_of_wrong_items_takes_little_memory(kind: str, repo_root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT, kind], capture_output=True, text=True, cwd=repo_root)
    assert done.returncode == 0, done.stderr
    is_short, megabytes = done.stdout.split()
    assert is_short == "True" and int(megabytes) < 300
