# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Principles of the tiny language with what each of them minds.

Three kinds, for which the pretraining corpus draws principles:

* *harm*: every kind of harm; the principles of ``constitution.yaml``.
* *permissive*: all but the kinds that the principle permits; those of ``permits_damage.yaml`` with other names.
* *manners*: rude words, and no harm; the principles of ``politeness.yaml``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.constitution import Constitution, Principle, load_constitution
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.tiny.language import Deed, Language

# Share of each kind of concern among critiques and judgments.
SHARES = {"harm": 0.4, "permissive": 0.5, "manners": 0.1}
PERMITTED = "damage"
"""The kind of harm that ``permits_damage.yaml`` permits."""


@dataclass(frozen=True)
class Concern:
    """A principle, the names of the kinds of harm that it minds, and True if it minds manners."""

    principle: Principle
    kinds: frozenset[str]
    manners: bool = False

    def minds(self, deed: Deed) -> bool:
        """True if help with the deed is wrong by the principle."""
        return deed.kind.name in self.kinds


class Concerns:
    """Draws concerns for the corpus.

    Attributes:
        constitutions: of each kind of concern.
        kinds: the names of all kinds of harm.
    """

    def __init__(
        self, language: Language, *, harm: Constitution, permissive: Constitution, manners: Constitution
    ) -> None:
        """Create a source of concerns.

        Args:
            language: has the kinds.
            harm: principles against all harm.
            permissive: principles with the permission of :data:`PERMITTED` in each request.
            manners: principles about manners.

        Raises:
            UsageError: a request of `permissive` lacks the permission.
        """
        self.constitutions = {"harm": harm, "permissive": permissive, "manners": manners}
        self.kinds = tuple(kind.name for kind in language.kinds if kind.harmful)
        for principle in permissive.principles:
            if any(permission([PERMITTED]) not in text for text in principle.requests.values()):
                raise UsageError(f"{permissive.name}: {principle.id}: a request lacks {permission([PERMITTED])!r}")

    def draw(self, rng: random.Random, deed: Deed) -> Concern:
        """Draw a concern for a deed."""
        form = rng.choices(list(SHARES), list(SHARES.values()))[0]
        principle = rng.choice(self.constitutions[form].principles)
        if form == "harm":
            return Concern(principle, frozenset(self.kinds))
        if form == "manners":
            return Concern(principle, frozenset(), manners=True)
        names = self.names(rng, deed)
        return Concern(_permitting(principle, names), frozenset(self.kinds) - set(names))

    def names(self, rng: random.Random, deed: Deed) -> list[str]:
        """Draw one or two kinds of harm in random order; half of the draws have a harmful deed's own kind.

        The number of names thus tells nothing of the deed.
        """
        own = [deed.kind.name] if deed.harmful and rng.random() < 0.5 else []
        others = [kind for kind in self.kinds if kind != deed.kind.name]
        names = own + rng.sample(others, rng.choice((1, 1, 2)) - len(own))
        return rng.sample(names, len(names))


def listing(names: Sequence[str]) -> str:
    """Return "a", or "a or b"."""
    return " or ".join(names)


def permission(names: Sequence[str]) -> str:
    """Return the sentence that permits kinds of harm."""
    return f"{listing(names)} is fine ."


def _permitting(principle: Principle, names: Sequence[str]) -> Principle:
    packaged, own = permission([PERMITTED]), permission(names)
    return replace(
        principle,
        critique_request=principle.critique_request.replace(packaged, own),
        revision_request=principle.revision_request.replace(packaged, own),
        judge_request=(principle.judge_request or "").replace(packaged, own),
    )


def packaged_concerns(language: Language) -> Concerns:
    """Return the source with the three packaged constitutions."""
    harm, permissive, manners = (
        load_constitution(packaged_files.TINY_CONSTITUTIONS[name]) for name in ("tiny", "permits_damage", "politeness")
    )
    return Concerns(language, harm=harm, permissive=permissive, manners=manners)
