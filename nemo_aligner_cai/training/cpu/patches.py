# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a run-time patch of an upstream package is: when it is needed, and what says that its target is gone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from nemo_aligner_cai.errors import CaiError


@dataclass(frozen=True)
class Patch:
    """One replacement in an upstream package.

    Attributes:
        name: short stable id, e.g. "T1"; T = torch, M = Megatron-Core, N = NeMo, A = NeMo-Aligner, E = environment.
        reason: the patch function's docstring.
        when: whether this machine needs it.
        apply: makes the replacement; raises CaiError when its target is gone.
    """

    name: str
    reason: str
    when: Callable[[], bool]
    apply: Callable[[], None]


PATCHES: list[Patch] = []


def no_cuda() -> bool:
    """Whether torch sees no CUDA device here."""
    return not torch.cuda.is_available()


def missing(package: str) -> Callable[[], bool]:
    """A condition that holds where `package` cannot be imported."""
    return lambda: not installed(package)


def installed(package: str) -> bool:
    """Whether `package` can be found, without importing it."""
    return importlib.util.find_spec(package) is not None


def patch(name: str, when: Callable[[], bool]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Register the decorated function as a patch, with its docstring as the reason."""

    def register(apply: Callable[[], None]) -> Callable[[], None]:
        PATCHES.append(Patch(name, (apply.__doc__ or "").strip(), when, apply))
        return apply

    return register


def replace(owner: Any, name: str, new: Any) -> None:
    """Set `owner.name`, which must exist: a patch without a target means that upstream has changed."""
    if not hasattr(owner, name):
        where = getattr(owner, "__name__", repr(owner))
        raise CaiError(
            f"cannot prepare NeMo for this machine: {where} has no {name!r} any more; "
            "install the versions in constraints/ or update nemo_aligner_cai/training/cpu/install.py"
        )
    setattr(owner, name, new)


def fill(owner: Any, name: str, new: Any) -> None:
    """Define `owner.name`, which a failed optional import left undefined although the code uses it."""
    if hasattr(owner, name):
        raise CaiError(
            f"{owner.__name__}.{name} is defined now: its patch in training/cpu/install.py is not needed any more"
        )
    setattr(owner, name, new)
