# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
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
