# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Tries untrusted work in a copy of this process that the kernel ends when it needs too much time or memory.

One operation of a chat template, such as ``'a' * 10**9``, is one call of C code, which Python cannot interrupt; and
operators, filters, format strings and loops have no limit in common but these two.
"""

import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SECONDS = 2
"""CPU time of a trial; loading a real chat template needs some 10 ms."""
MEMORY = 256 << 20
"""Bytes that a trial may allocate beyond what this process has."""
_WALL_SECONDS = 60
"""Ends a copy that waits for a lock of another thread."""


def is_bounded(work: Callable[[], object]) -> bool:
    """True if a call ends within the limits, with a result or an exception. It has no effect on this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _limit()
            if _ends(work):
                os.write(writer, b"1")
        finally:
            # Neither the buffered output nor the exit handlers of this process may run twice.
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        ended = pipe.read() == b"1"
    # Another thread may collect all children.
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    return ended


def _ends(work: Callable[[], object]) -> bool:
    try:
        work()
    except Exception as error:
        return not isinstance(error, MemoryError)
    return True


def _limit() -> None:
    for number in (signal.SIGXCPU, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(_WALL_SECONDS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for name, limit in (
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(name)[1]
        resource.setrlimit(name, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
