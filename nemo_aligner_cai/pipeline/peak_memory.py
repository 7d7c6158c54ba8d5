# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of this process and its descendants."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

_MEGABYTE = 1 << 20
_INTERVAL_S = 0.5


@dataclass
class PeakMemory:
    """The highest resident memory so far, in megabytes."""

    megabytes: float = 0.0


@contextmanager
def peak_memory() -> Generator[PeakMemory, None, None]:
    """Sample the resident memory of this process and its descendants while the block runs.

    Pages that forked processes share are counted once per process, so the peak is an upper bound.
    """
    peak, stop = PeakMemory(), threading.Event()

    def sample() -> None:
        while True:
            peak.megabytes = max(peak.megabytes, _resident_bytes() / _MEGABYTE)
            if stop.wait(_INTERVAL_S):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _resident_bytes() -> int:
    import psutil

    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # ended since it was listed
    return total
