# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs coroutines that use model clients; Ctrl-C ends them in order, in all supported versions of Python."""

import asyncio
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from nemo_aligner_cai.models.base import ModelClient

T = TypeVar("T")


def run_and_close(work: Coroutine[Any, Any, T], *clients: ModelClient) -> T:
    """Run a coroutine and close the clients that it uses; the first Ctrl-C cancels it, as in Python 3.11.

    Python 3.10 raises KeyboardInterrupt in whatever task is running, which then reports it a second time at the exit.

    Raises:
        KeyboardInterrupt: the coroutine was cancelled by Ctrl-C and has ended.
    """

    async def run() -> T:
        try:
            return await work
        finally:
            for client in clients:
                await client.close()

    if sys.version_info >= (3, 11) or threading.current_thread() is not threading.main_thread():
        return asyncio.run(run())

    async def cancelled_by_ctrl_c() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt() -> None:
            loop.remove_signal_handler(signal.SIGINT)  # the second Ctrl-C ends at once
            task.cancel()

        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await run()
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    try:
        return asyncio.run(cancelled_by_ctrl_c())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
