# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Addresses that a process and its descendants listen on."""

import ipaddress
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil


def open_doors(pid: int) -> set[tuple[str, str, int]]:
    """Program, address and port of each TCP socket that listens on more than the loopback interface."""
    return {
        (name, address, port)
        for name, address, port in listening(pid)
        if not ipaddress.ip_address(address).is_loopback
    }


def listening(pid: int) -> set[tuple[str, str, int]]:
    """Program, address and port of each listening TCP socket of a process and its descendants."""
    found: set[tuple[str, str, int]] = set()
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found |= {
                    (process.name(), *socket.laddr)
                    for socket in process.net_connections("tcp")
                    if socket.status == psutil.CONN_LISTEN
                }
    return found


@contextmanager
def watched(pid: int, look: Callable[[int], set[tuple[str, str, int]]]) -> Iterator[set[tuple[str, str, int]]]:
    """What `look` finds of a process, several times a second, while the block lasts."""
    found: set[tuple[str, str, int]] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.3):
            found.update(look(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
