# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Ends processes that are not children of the tests, any of which may end by itself meanwhile."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


def kill(processes: Iterable[psutil.Process]) -> None:
    """Send SIGKILL to those that still exist."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
