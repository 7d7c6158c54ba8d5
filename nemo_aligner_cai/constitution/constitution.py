# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A constitution: the principles that critique, revise and judge answers."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.packaged_files import CONSTITUTIONS


@dataclass(frozen=True)
class Principle:
    """One principle, as the requests that are sent to a model.

    The critique and revision requests are "" for a principle that only judges; `judge_request` is None for one that
    never judges.
    """

    id: str
    critique_request: str
    revision_request: str
    judge_request: str | None = None

    @property
    def requests(self) -> dict[str, str]:
        """The non-empty requests, by their keys in the YAML file."""
        forms = {"critique": self.critique_request, "revision": self.revision_request, "judge": self.judge_request}
        return {form: text for form, text in forms.items() if text}


@dataclass(frozen=True)
class Constitution:
    """Principles in the order of their file; at least one."""

    principles: tuple[Principle, ...]
    name: str

    @cached_property
    def for_revision(self) -> tuple[Principle, ...]:
        """The principles that can critique and revise (SL-CAI)."""
        return tuple(p for p in self.principles if p.critique_request and p.revision_request)

    @cached_property
    def for_judging(self) -> tuple[Principle, ...]:
        """The principles that can choose between two answers (RL-CAI)."""
        return tuple(p for p in self.principles if p.judge_request)


def packaged(name: str = "harmlessness.yaml") -> Path:
    """The path of a file that comes with the package; the suffix .yaml is optional.

    Raises:
        UsageError: there is no such file; the message lists those there are.
    """
    for candidate in (name, f"{name}.yaml"):
        if "/" not in name and (CONSTITUTIONS / candidate).is_file():
            return CONSTITUTIONS / candidate
    known = sorted(path.name for path in CONSTITUTIONS.iterdir() if path.suffix in (".yaml", ".json"))
    raise UsageError(f"{name}: no such file in the package; it has {', '.join(known)}")
