# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Optional dependencies (extras), and the command that installs them.

The package is not on PyPI, so the command must not name it: whoever registers the name could serve anything.
"""

import importlib.util
from collections.abc import Sequence

from nemo_aligner_cai.errors import NotHere

TRAINING = ("torch", "lightning", "hydra", "omegaconf", "megatron", "nemo", "nemo_aligner")
"""The modules of the extra [nemo] that trainers and NeMo's server import."""
COMPOSING = ("hydra", "omegaconf")
"""The modules of the extra [hydra], which read the trainers' configurations."""
_CONTAINER = "NVIDIA's NeMo container has the extra [nemo]"


def install_command(extra: str) -> str:
    """The command that installs an extra from a checkout of this package."""
    return f'pip install ".[{extra}]" in the checkout of nemo_aligner_cai'


def not_installed(what: str, name: str, extra: str) -> NotHere:
    """The error of `what`, which needs the missing package `name` of an extra."""
    or_else = f"; {_CONTAINER}" if extra == "nemo" else ""
    message = f"{what} needs the package {name}, which is not installed: {install_command(extra)}{or_else}"
    return NotHere(message, f"the package {name} (extra [{extra}])")


def require(what: str, names: Sequence[str] = TRAINING, extra: str = "nemo") -> None:
    """Raise NotHere if a package of an extra is missing, without importing any.

    Args:
        what: the command or function that needs the packages.
        names: the names of top-level modules.
        extra: the extra that installs them.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise not_installed(what, name, extra)
