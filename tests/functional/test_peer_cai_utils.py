# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The tests that the nemo_aligner wheel ships for upstream's cai_utils, unmodified, against ours."""

import subprocess
import sys
from pathlib import Path

_RUN = """
import sys
import pytest
from nemo_aligner_cai.training.cpu.install import install_patches

install_patches()
module = "nemo_aligner.data.nlp.tests.cai_utils_test"
sys.exit(pytest.main(["-q", "-o", "addopts=", "--import-mode=append", "--pyargs", module]))
"""


def test_upstreams_own_tests_pass(repo_root: Path):
    command = [sys.executable, "-c", _RUN]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "14 passed" in done.stdout
