# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The connections that the limit on open files allows."""

import resource

_RESERVED = 1024
"""For the journal, the outputs, the libraries, and connections between two requests (`exchange.CleanConnector`)."""


def allowed_connections() -> int:
    """Raise the process's limit on open files as far as the system permits, and return the connections within it.

    The soft limit is 1,024 on most systems, less than the requests to 20 servers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, hard - _RESERVED) if hard != resource.RLIM_INFINITY else 1 << 20
