# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""API keys from environment variables; they are hidden in everything that this process writes."""

import os

from nemo_aligner_cai.console.printable import hide_secret
from nemo_aligner_cai.errors import NotHere, UsageError


def key_from_environment(*names: str) -> str | None:
    """Return the API key from the first of these environment variables that is set, or None."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), None)


def named_key(variable: str | None) -> str | None:
    """Return the API key in an environment variable, None for no variable; raises UsageError if it is not set."""
    if variable is None:
        return None
    key = key_from_environment(variable)
    if key is None:
        # A lower-case name may be a key, given by mistake.
        name = variable if variable.isupper() else "that --...-api-key-env or key_env names"
        raise NotHere(f"the environment variable {name} with the API key is not set", f"the variable {name}")
    return checked_key(key, variable)


def checked_key(key: str, source: str) -> str:
    """Return the key; raises UsageError, without the key in the message, if an HTTP header cannot hold it."""
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{source}: the API key contains a line end or another character that keys do not have")
    hide_secret(key)
    return key
