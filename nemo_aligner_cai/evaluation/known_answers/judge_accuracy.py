# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a judge on items with a known answer, with intervals.

Input:  rows of judge_items.JudgedItem
Output: Accuracy: the share of correct answers, of all items and by category
"""

from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.evaluation.known_answers.accuracy_rules import RuleScores
from nemo_aligner_cai.evaluation.known_answers.judge_item import CORRECT
from nemo_aligner_cai.evaluation.known_answers.judge_items import JudgedItem
from nemo_aligner_cai.evaluation.statistics.rates import Rate, rate_dict


@dataclass
class Accuracy:
    """Counts of items.

    Attributes:
        asked: items that the judge was asked (for the others, a call failed).
        answered: items with a parsed answer on which the orders agree.
        right: items with the correct answer.
        chances: sum of the probabilities of the correct answer by chance.
        rules: the accuracy by each of three rules.
        categories: the same by category.
    """

    asked: int = 0
    answered: int = 0
    right: int = 0
    chances: float = 0.0
    rules: RuleScores = field(default_factory=RuleScores)
    categories: dict[str, "Accuracy"] = field(default_factory=dict[str, "Accuracy"])

    def add(self, item: JudgedItem, *, by_category: bool = True) -> None:
        """Add an item; an item without verdicts was not asked."""
        if not item.row.verdicts:
            return
        self.asked += 1
        self.answered += item.answer is not None
        self.right += item.answer == CORRECT
        self.chances += 1 / len(item.row.candidates)
        self.rules.add(item)
        if by_category and item.category is not None:
            self.categories.setdefault(item.category, Accuracy()).add(item, by_category=False)

    @property
    def rate(self) -> Rate | None:
        """The share of correct answers among all items asked; a missing answer is not correct. None without items."""
        return Rate.of_share(self.right / self.asked, self.asked) if self.asked else None

    @property
    def rate_of_answered(self) -> Rate | None:
        """The share of correct answers among those given; None without answers."""
        return Rate.of_share(self.right / self.answered, self.answered) if self.answered else None

    @property
    def by_chance(self) -> float | None:
        """The expected share of correct answers of a judge that guesses and never ties; None without items."""
        return self.chances / self.asked if self.asked else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        own: dict[str, Any] = {
            "asked": self.asked,
            "answered": self.answered,
            "right": self.right,
            "accuracy": rate_dict(self.rate),
            "accuracy_of_answered": rate_dict(self.rate_of_answered),
            "by_chance": self.by_chance,
            "rules": self.rules.to_dict(),
        }
        if self.categories:
            own["categories"] = {name: part.to_dict() for name, part in sorted(self.categories.items())}
        return own
