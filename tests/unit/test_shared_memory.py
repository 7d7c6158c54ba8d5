# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of a run: what forked processes share is counted once."""

import subprocess
import sys

import pytest

from nemo_aligner_cai.pipeline.peak_memory import peak_memory

_BLOCK_MB = 256
# A process with one block, and three forks of it that only read.
_FORKS = f"""
import os, sys, time
block = bytearray({_BLOCK_MB} << 20)
for _ in range(3):
    if not os.fork():
        time.sleep(600)
print("ready", flush=True)
sys.stdin.read()
os.killpg(0, 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the proportional set size")
def test_a_block_that_four_processes_share_counts_once() -> None:
    pytest.importorskip("psutil", reason="psutil comes with the extra nemo, as `cai run` does")
    with peak_memory() as alone:
        pass
    with subprocess.Popen(
        [sys.executable, "-c", _FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with peak_memory() as with_forks:
            pass
        process.communicate()
    assert _BLOCK_MB < with_forks.megabytes - alone.megabytes < 1.5 * _BLOCK_MB
