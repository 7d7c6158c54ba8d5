# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Agreement of judges: what several runs say of the same pairs of candidates.

Input:  rows of stages/comparisons.py, from runs that judged the same candidates (the policy's seed and model agree)
Output: Agreement(common=950, rate=Rate(0.91, ...), kappa=0.82) for each two runs

A pair is the same where its prompt and its two texts are.
"""

from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.evaluation.audit import PerPrompt, rate_dict
from nemo_aligner_cai.evaluation.rates import Rate
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.files.compact import CompactMap


@dataclass(frozen=True)
class Agreement:
    """What two runs say of the pairs that both have kept.

    Attributes:
        common: pairs that both have kept.
        only_first: pairs that only the first run has kept.
        only_second: likewise.
        rate: the share of the common pairs with the same preference; None where there are none.
        kappa: Cohen's: 1 for the same preferences, 0 for no more agreement than by chance; None where chance alone
            explains everything (one side always wins) or there is nothing in common. Cohen, Educational and
            Psychological Measurement 20, 1960.
    """

    common: int
    only_first: int
    only_second: int
    rate: Rate | None
    kappa: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "common": self.common,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "same_preference": rate_dict(self.rate),
            "kappa": self.kappa,
        }


@dataclass
class _Common:
    """The pairs that two runs share: whether they agree, and how often each prefers the second side."""

    same: PerPrompt = field(default_factory=PerPrompt)
    first: int = 0
    second: int = 0


class Preferences:
    """The kept pairs of several runs, in a few bytes a pair. One run is added after the other."""

    def __init__(self) -> None:
        self._runs: list[CompactMap] = []
        self._common: list[list[_Common]] = []
        """For each run, what it has in common with each run before it."""

    def start_run(self) -> None:
        """What is added from now on is another run's."""
        self._common.append([_Common() for _ in self._runs])
        self._runs.append(CompactMap())

    def add(self, row: JudgedRow) -> int:
        """Add a row's kept pairs; returns how many of them the run has had before, which are left out."""
        *others, own = self._runs
        fresh = {pair: side for pair, side in _sides(row) if own.get(pair) is None}
        for pair, side in fresh.items():
            own[pair] = side
        for other, common in zip(others, self._common[-1], strict=True):
            both = [(theirs, side) for pair, side in fresh.items() if (theirs := other.get(pair)) is not None]
            common.same.add(float(theirs == side) for theirs, side in both)
            common.first += sum(theirs for theirs, _ in both)
            common.second += sum(side for _, side in both)
        return len(row.pairs) - len(fresh)

    def agreement(self, first: int, second: int) -> Agreement:
        """What two runs have in common, by their numbers in the order of adding, the lower one first."""
        common = self._common[second][first]
        count = common.same.count
        return Agreement(
            count,
            len(self._runs[first]) - count,
            len(self._runs[second]) - count,
            common.same.rate,
            _kappa(common.same.mean, common.first / count, common.second / count) if count else None,
        )


def _sides(row: JudgedRow) -> list[tuple[int, int]]:
    """For each kept pair its name, and which side won: 0 or 1, by the order of hashes of prompt and text.

    An order that is another for each prompt, even where a refusal is the same for many, makes both sides equally
    likely, which is what chance agreement is reckoned from.
    """
    sides: list[tuple[int, int]] = []
    prompt = row.prompt.to_messages()
    for chosen, rejected in row.kept():
        won, lost = (content_hash([prompt, row.candidates[number].text]) for number in (chosen, rejected))
        sides.append((int(content_hash(sorted((won, lost))), 16), int(won > lost)))
    return sides


def _kappa(observed: float | None, p: float, q: float) -> float | None:
    """Cohen's kappa of two runs that prefer the second side in shares `p` and `q` of the pairs."""
    expected = p * q + (1 - p) * (1 - q)
    return None if observed is None or expected == 1.0 else (observed - expected) / (1 - expected)
