# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Run-time patches of NeMo and its libraries: their registry, conditions and replacement functions."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nemo_aligner_cai.errors import CaiError


@dataclass(frozen=True)
class Patch:
    """One replacement in a package.

    Attributes:
        name: short stable id, e.g. "T1"; T = torch, M = Megatron-Core, N = NeMo, A = NeMo-Aligner, E = environment.
        reason: the patch function's docstring.
        when: True if this machine needs it.
        apply: makes the replacement; raises CaiError if its target is missing.
    """

    name: str
    reason: str
    when: Callable[[], bool]
    apply: Callable[[], None]


PATCHES: list[Patch] = []


def no_cuda() -> bool:
    """True without a CUDA device."""
    return not torch.cuda.is_available()


def missing(package: str) -> Callable[[], bool]:
    """A condition: `package` is not installed."""
    return lambda: not installed(package)


def installed(package: str) -> bool:
    """True if `package` can be found; does not import it."""
    return importlib.util.find_spec(package) is not None


def patch(name: str, when: Callable[[], bool]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated function as a patch; its docstring is the reason."""

    def register(apply: Callable[[], None]) -> Callable[[], None]:
        PATCHES.append(Patch(name, (apply.__doc__ or "").strip(), when, apply))
        return apply

    return register


def replace(owner: Any, name: str, new: Any) -> None:
    """Replace `owner.name`, which must exist; raises CaiError if the package has changed."""
    if not hasattr(owner, name):
        where = getattr(owner, "__name__", repr(owner))
        raise CaiError(
            f"cannot patch NeMo: {where} no longer has {name!r}; "
            "install the versions in constraints/ or update nemo_aligner_cai/training/cpu/install.py"
        )
    setattr(owner, name, new)


def fill(owner: Any, name: str, new: Any) -> None:
    """Define `owner.name`, which is used but undefined after a failed optional import."""
    if hasattr(owner, name):
        raise CaiError(f"{owner.__name__}.{name} is defined: remove its patch from training/cpu/install.py")
    setattr(owner, name, new)
