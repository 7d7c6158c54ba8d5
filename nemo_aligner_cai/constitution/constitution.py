# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A constitution: the principles by which answers are critiqued, revised and judged.

Input, YAML (or another form of `constitution_forms`, told apart by its content):

    name: harmlessness
    principles:
      - id: misuse                # optional
        critique: Does any sentence ...
        revision: Rewrite ...
        judge: Which answer ...   # optional, or this alone

Output: Constitution(principles=(Principle("misuse", "Does any sentence ...", "Rewrite ...", "Which answer ..."),))
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from nemo_aligner_cai.constitution.forms import EXAMPLE, Entry, read_entries
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.files import PathLike
from nemo_aligner_cai.packaged_files import CONSTITUTIONS


@dataclass(frozen=True)
class Principle:
    """One rule, as the requests that a model is given.

    `critique_request` and `revision_request` are "" for a rule that only judges, `judge_request` is None for one that
    never does.
    """

    id: str
    critique_request: str
    revision_request: str
    judge_request: str | None = None

    @property
    def requests(self) -> dict[str, str]:
        """The requests that there are, under the keys of our YAML."""
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
    """The path of a file that comes with the package; the ending .yaml may be left out.

    Raises:
        UsageError: there is no such file; the message names those there are.
    """
    for candidate in (name, f"{name}.yaml"):
        if "/" not in name and (CONSTITUTIONS / candidate).is_file():
            return CONSTITUTIONS / candidate
    there_are = sorted(path.name for path in CONSTITUTIONS.iterdir() if path.suffix in (".yaml", ".json"))
    raise UsageError(f"{name}: no such file in the package; it has {', '.join(there_are)}")


def load_constitution(path: PathLike) -> Constitution:
    """Read a constitution of one of the forms of `nemo_aligner_cai.constitution.forms`.

    Raises:
        UsageError, FormatError: with the line and key, and what is expected there.
    """
    path = Path(path)
    name, entries = read_entries(path)
    constitution = Constitution(tuple(_principle(path, entry) for entry in entries), name)
    twice = [name for name, count in Counter(p.id for p in constitution.principles).items() if count > 1]
    if twice:
        raise UsageError(f"{path}: the id {twice[0]!r} is given to more than one principle")
    return constitution


def _principle(path: Path, entry: Entry) -> Principle:
    texts = entry.texts
    if ("critique" in texts) != ("revision" in texts):
        problem = "needs both 'critique' and 'revision', or neither"
    elif not ("critique" in texts or "judge" in texts):
        problem = "needs 'critique' and 'revision', or 'judge'"
    else:
        return Principle(texts["id"], texts.get("critique", ""), texts.get("revision", ""), texts.get("judge"))
    message = f"principle {texts['id']!r} {problem}; {EXAMPLE}"
    raise FormatError.at(path, entry.line, message) if entry.line else UsageError(f"{path}: {message}")
