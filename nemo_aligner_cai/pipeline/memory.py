# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of this process and all it has started."""

from __future__ import annotations

import threading
from types import TracebackType

_MEGABYTE = 1 << 20


class PeakMemory:
    """Watches, while its block runs, the resident memory of this process and its descendants together.

    Pages that forked processes share are counted once for each, so the peak is an upper bound.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        """Look every ``interval_s`` seconds."""
        self.megabytes = 0.0
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        """Start watching."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self.megabytes = max(self.megabytes, _resident_bytes() / _MEGABYTE)
            if self._over.wait(self._interval_s):
                return


def _resident_bytes() -> int:
    import psutil

    own = psutil.Process()
    total = 0
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue  # it ended between the two looks
    return total
