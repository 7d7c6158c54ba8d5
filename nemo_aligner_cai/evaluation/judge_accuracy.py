# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How often a judge chooses the right answer, with intervals.

Input:  rows of judge_items.JudgedItem
Output: Accuracy: the share of the items answered rightly, of all and by category
"""

from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.evaluation.audit import rate_dict
from nemo_aligner_cai.evaluation.judge_items import CORRECT, JudgedItem
from nemo_aligner_cai.evaluation.rates import Rate


@dataclass
class Accuracy:
    """Counts of items.

    `asked` were put to the judge (of the others, a call failed), `answered` have an answer: the orders agree, and it
    could be read. `chances` adds up the probabilities of the right answer by chance.
    """

    asked: int = 0
    answered: int = 0
    right: int = 0
    chances: float = 0.0
    categories: dict[str, "Accuracy"] = field(default_factory=dict[str, "Accuracy"])

    def add(self, item: JudgedItem, *, by_category: bool = True) -> None:
        """Add an item; one without verdicts was not asked."""
        if not item.row.verdicts:
            return
        self.asked += 1
        self.answered += item.answer is not None
        self.right += item.answer == CORRECT
        self.chances += 1 / len(item.row.candidates)
        if by_category and item.category is not None:
            self.categories.setdefault(item.category, Accuracy()).add(item, by_category=False)

    @property
    def rate(self) -> Rate | None:
        """Right answers among all items asked: no answer is no right answer. None where nothing was asked."""
        return Rate.of_share(self.right / self.asked, self.asked) if self.asked else None

    @property
    def rate_of_answered(self) -> Rate | None:
        """Right answers among those given; None where there are none."""
        return Rate.of_share(self.right / self.answered, self.answered) if self.answered else None

    @property
    def by_chance(self) -> float | None:
        """The share of right answers of a judge that rolls a die, and never ties."""
        return self.chances / self.asked if self.asked else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        own: dict[str, Any] = {
            "asked": self.asked,
            "answered": self.answered,
            "right": self.right,
            "accuracy": rate_dict(self.rate),
            "accuracy_of_answered": rate_dict(self.rate_of_answered),
            "by_chance": self.by_chance,
        }
        if self.categories:
            own["categories"] = {name: part.to_dict() for name, part in sorted(self.categories.items())}
        return own
