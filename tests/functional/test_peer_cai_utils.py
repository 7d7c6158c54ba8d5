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
"""The tests that the nemo_aligner wheel ships for upstream's cai_utils, unmodified, against ours."""

import subprocess
import sys
from pathlib import Path

_RUN = """
import sys
import pytest
from nemo_aligner_cai.training import cpu

cpu.install()
module = "nemo_aligner.data.nlp.tests.cai_utils_test"
sys.exit(pytest.main(["-q", "-o", "addopts=", "--import-mode=append", "--pyargs", module]))
"""


def test_upstreams_own_tests_pass(repo_root: Path):
    command = [sys.executable, "-c", _RUN]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "14 passed" in done.stdout
