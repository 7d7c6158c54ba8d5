# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The optional parts of an installation, and the command that installs one.

The package is not on PyPI: whoever owned its name there could give anything to those who are told to install it.
"""

import importlib.util
from collections.abc import Sequence

from nemo_aligner_cai.errors import UsageError

TRAINING = ("torch", "lightning", "hydra", "omegaconf", "megatron", "nemo", "nemo_aligner")
"""What trainers and NeMo's server import of the extra [nemo]."""
_CONTAINER = "NVIDIA's NeMo container has the extra [nemo]"


def install_command(extra: str) -> str:
    """The command that installs an extra, which works in a checkout of this package."""
    return f'pip install ".[{extra}]" in the checkout of nemo_aligner_cai'


def not_installed(what: str, name: str, extra: str) -> UsageError:
    """The error of something that needs a package of an extra that is not installed."""
    or_else = f"; {_CONTAINER}" if extra == "nemo" else ""
    return UsageError(f"{what} needs the package {name}, which is not installed: {install_command(extra)}{or_else}")


def require(what: str, names: Sequence[str] = TRAINING, extra: str = "nemo") -> None:
    """Raise UsageError if a package of an extra is missing; imports none of them.

    Args:
        what: the command or function that needs them.
        names: of the modules, without dots.
        extra: the extra that has them.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise not_installed(what, name, extra)
