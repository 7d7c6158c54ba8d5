# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of this process and its descendants."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

_MEGABYTE = 1 << 20
_INTERVAL_S = 0.5
_MAX_SHARE = 0.05
"""The most of one core that sampling may take: the kernel visits every page."""


@dataclass
class PeakMemory:
    """The highest memory so far, in megabytes."""

    megabytes: float = 0.0


@contextmanager
def peak_memory() -> Generator[PeakMemory, None, None]:
    """Sample the memory of this process and its descendants while the block runs.

    It is their proportional set size: a page that n processes share counts 1/n in each. Resident memory would count it
    n times, and a trainer's checkpoint writers, which are forks of it, share gigabytes.
    """
    peak, stop = PeakMemory(), threading.Event()

    def sample() -> None:
        while True:
            began = time.thread_time()
            peak.megabytes = max(peak.megabytes, _used_bytes() / _MEGABYTE)
            if stop.wait(max(_INTERVAL_S, (time.thread_time() - began) / _MAX_SHARE)):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _used_bytes() -> int:
    import psutil

    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue  # ended since it was listed, or became another user's
        total += getattr(memory, "pss", memory.rss)  # Linux alone has it
    return total
