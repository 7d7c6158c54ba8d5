# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Locks between processes, on one machine or on several that share a file system."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from nemo_aligner_cai.errors import UsageError


@contextmanager
def file_lock(path: Path, *, wait: bool, shared: bool = False) -> Generator[None]:
    """Hold a lock while the block runs; the file and its folder are created. A killed process holds no lock.

    Args:
        path: the lock's file.
        wait: wait for a process that holds the lock.
        shared: several processes may hold the lock in this way, unless one holds it alone.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        UsageError: the file cannot be created, or its file system has no locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UsageError(f"{path}: cannot be locked: {error.strerror or error}") from error
    with os.fdopen(handle):
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, how if wait else how | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            reason = f"its file system has no locks: {error.strerror or error}"
            raise UsageError(f"{path}: {reason}; mount it with flock, or choose another folder") from error
        yield
