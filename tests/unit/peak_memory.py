# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The peak memory of a process."""

import re
from pathlib import Path


def peak_memory() -> int:
    """The largest resident set of this process so far, in MiB.

    `getrusage` does not tell: Linux carries `ru_maxrss` over from the process that started this one.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) >> 10
