# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Restricts the processes of a single-node job to the loopback interface.

torch's rendezvous store listens on all interfaces, whatever MASTER_ADDR is, and gloo and NCCL on that of the host's
name; none of them has authentication. A job of several nodes listens like torch does.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
from collections.abc import Callable, MutableMapping
from types import SimpleNamespace
from typing import Any

from nemo_aligner_cai.training.checks import ranks
from nemo_aligner_cai.training.cpu.patches import replace

LOOPBACK = "127.0.0.1"
_BACKLOG = 2048  # the same as torch's
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def restrict(env: MutableMapping[str, str] | None = None) -> bool:
    """Make this process's stores and process groups listen on the loopback interface, if its job is on one node.

    Call it before the first process group is created. Values of `_INTERFACES` that are already set are kept.

    Args:
        env: environment variables; None for `os.environ`.

    Returns:
        True if the job is on one node.
    """
    env = os.environ if env is None else env
    if ranks.nodes(env) > 1:
        return False
    for name in _INTERFACES:
        env.setdefault(name, _loopback_interface())
    _restrict_store()
    return True


def restrict_rollouts() -> None:
    """Make PPO's rollout server (`use_flask`) listen on the loopback interface, if the job is on one node.

    NeMo-Aligner's listens on the address of the host's name.
    """
    if ranks.nodes(os.environ) > 1:
        return
    from nemo_aligner.utils import batch_iterators

    loopback = SimpleNamespace(gethostname=socket.gethostname, gethostbyname=lambda _: LOOPBACK)
    replace(batch_iterators, "socket", loopback)


def is_loopback(host: str) -> bool:
    """True for a loopback address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _loopback_interface() -> str:
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), "lo")


def _restrict_store() -> None:
    from torch._C._distributed_c10d import TCPStore

    store: Any = TCPStore
    original: Callable[..., None] = store.__init__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def init(
        self: Any,
        host_name: str,
        port: int,
        world_size: int | None = None,
        is_master: bool = False,
        *args: Any,
        **options: Any,
    ) -> None:
        # A process that is alone needs no port that others know. Lightning's was free when it was chosen, seconds ago,
        # and is one of those that Linux gives to any connection of this machine.
        chosen = 0 if world_size == 1 else int(port)
        if is_master and (listening := _listen(chosen)) is not None:
            port, options["master_listen_fd"] = listening.getsockname()[1], listening.detach()
        original(self, LOOPBACK, port, world_size, is_master, *args, **options)

    store.__init__ = init


def _listen(port: int) -> socket.socket | None:
    """A socket that listens on the loopback interface; None if the port is in use.

    torch shares one socket between the stores of a process on the same port, so it must decide in that case.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        return None
    return listening
