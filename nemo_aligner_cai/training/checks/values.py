# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Settings read as the type that they must have; a wrong one raises UsageError with its key."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_aligner_cai.errors import UsageError, one_line
from nemo_aligner_cai.training.config import select

if TYPE_CHECKING:
    from omegaconf import DictConfig


def parse_positive_int(value: object, key: str) -> int:
    """The value at `key`; raises UsageError if it is not a positive integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{key}={value}: must be a positive integer")
    return value


def positive_int(cfg: DictConfig, key: str) -> int | None:
    """The positive integer at `key`; None if it is unset."""
    value = select(cfg, key)
    return None if value is None else parse_positive_int(value, key)


def parse_path(value: object, key: str) -> Path:
    """The path at `key`; raises UsageError if the value is not a string."""
    if not isinstance(value, str):
        raise UsageError(f"{key}: {value!r} is not a path")
    return Path(value)


def check_port(host: str, value: object, key: str) -> None:
    """Raise UsageError if no server can listen on the port at `key`."""
    port = parse_positive_int(value, key)
    if port > 65535:
        raise UsageError(f"{key}={port}: a port is between 1 and 65535")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without this option, a port that a server left a minute ago counts as in use.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError, TypeError) as error:
            # UnicodeError: a host name with an empty label; TypeError: a host that is not a string.
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                raise UsageError(f"{key}: port {port} on {host} is in use; choose another") from error
            raise UsageError(f"{key}: cannot listen on port {port} of host {host!r}: {one_line(error)}") from error
