# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of a judge by three named rules, which differ where the presentation orders disagree.

Input:  JudgedItem: the verdicts of each order (and of each principle) on an item with a known answer
Output: RuleScores: strict 14.1 %; judgebench 32.2 % right, 38.5 % ties, 29.3 % wrong; soft 51.5 %

    verdicts by order       strict   judgebench   soft
    right, right            right    right        1
    right, tie              wrong    right        3/4
    right, unparsed         wrong    right        1/2
    right, wrong            wrong    tie          1/2
    tie, tie                wrong    tie          1/2
    wrong, tie              wrong    wrong        1/4
"""

from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.data.judged_row import JudgedVerdict
from nemo_aligner_cai.evaluation.known_answers.judge_item import CORRECT
from nemo_aligner_cai.evaluation.known_answers.judge_items import JudgedItem
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, Rate, rate_dict


@dataclass
class RuleScores:
    """Items counted by each rule.

    Attributes:
        items: all items with verdicts.
        strict: items whose verdicts are all right.
        right: items with more right than wrong verdicts (JudgeBench's rule: Tan et al. 2024, arXiv:2410.12784).
        wrong: items with more wrong than right verdicts; the others are ties.
        unparsed: verdicts that could not be parsed.
        soft: mean over items of the mean over verdicts of the probability of the right answer. A verdict without a
            probability has 1, or 1/2 for a tie; an unparsed one has 0.
    """

    items: int = 0
    strict: int = 0
    right: int = 0
    wrong: int = 0
    unparsed: int = 0
    soft: ClusteredMean = field(default_factory=ClusteredMean)

    def add(self, item: JudgedItem) -> None:
        """Add an item; an item without verdicts is skipped."""
        if not item.row.verdicts:
            return
        keys = [candidate.key for candidate in item.row.candidates]
        correct = keys.index(CORRECT)
        chosen = [verdict.better for verdict in item.row.verdicts]
        right = sum(one == correct for one in chosen)
        wrong = sum(one is not None and one != correct for one in chosen)
        credits = [_credit(verdict, correct, len(keys)) for verdict in item.row.verdicts]
        self.items += 1
        self.strict += right == len(chosen)
        self.right += right > wrong
        self.wrong += wrong > right
        self.unparsed += sum(credit is None for credit in credits)
        self.soft.add([sum(credit or 0.0 for credit in credits) / len(credits)])

    def rates(self) -> dict[str, Rate]:
        """Return the rate of each rule with its interval: "strict", "judgebench" (right, ties, wrong) and "soft"."""
        soft = self.soft.rate
        if soft is None:
            return {}
        counts = {
            "strict": self.strict,
            "judgebench": self.right,
            "judgebench_ties": self.items - self.right - self.wrong,
            "judgebench_wrong": self.wrong,
        }
        return {name: Rate.of_share(count / self.items, self.items) for name, count in counts.items()} | {"soft": soft}

    def to_dict(self) -> dict[str, Any]:
        """Return the rates as JSON values."""
        return {name: rate_dict(rate) for name, rate in self.rates().items()}


def _credit(verdict: JudgedVerdict, correct: int, candidates: int) -> float | None:
    """Return the probability that a verdict gives to the correct candidate; None if it could not be parsed."""
    if not verdict.is_parsed:
        return None
    if verdict.probability is not None and candidates == 2:
        return verdict.probability if verdict.shown[0] == correct else 1 - verdict.probability
    return float(verdict.better == correct)
