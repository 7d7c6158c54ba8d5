# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Agreement of judges: preferences of several runs on the same pairs of candidates.

Input:  rows of `data.judged_row` from runs that judged the same candidates (same policy and seed)
Output: Agreement(common=950, rate=Rate(0.91, ...), kappa=0.82) for each two runs

Two pairs are the same if their prompts and both texts are equal.
"""

from dataclasses import dataclass, field
from typing import Any

from nemo_aligner_cai.data.judged_row import JudgedRow
from nemo_aligner_cai.evaluation.statistics.human_labels import beyond_chance
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, Rate, rate_dict
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.files.compact_sets import CompactMap


@dataclass(frozen=True)
class Agreement:
    """The agreement of two runs.

    Attributes:
        common: pairs kept by both runs.
        only_first: pairs kept only by the first run.
        only_second: pairs kept only by the second run.
        rate: the share of the common pairs with the same preference; None without common pairs.
        kappa: Cohen's kappa (Educational and Psychological Measurement 20, 1960): 1 for equal preferences, 0 for
            agreement by chance; None without common pairs, or if one side always wins.
    """

    common: int
    only_first: int
    only_second: int
    rate: Rate | None
    kappa: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return {
            "common": self.common,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "same_preference": rate_dict(self.rate),
            "kappa": self.kappa,
        }


@dataclass
class _Common:
    """The pairs that two runs share: their agreement, and how often each run prefers the second side."""

    same: ClusteredMean = field(default_factory=ClusteredMean)
    first: int = 0
    second: int = 0


class Preferences:
    """The kept pairs of several runs, added run by run, in a few bytes per pair."""

    def __init__(self) -> None:
        self._runs: list[CompactMap] = []
        self._common: list[list[_Common]] = []
        """For each run, the pairs in common with each earlier run."""

    def start_run(self) -> None:
        """Begin the next run; `add` adds to it."""
        self._common.append([_Common() for _ in self._runs])
        self._runs.append(CompactMap())

    def add(self, row: JudgedRow) -> int:
        """Add a row's kept pairs; returns the number of pairs that the run already has, which are skipped."""
        *others, own = self._runs
        fresh = {pair: side for pair, side in _sides(row) if own.get(pair) is None}
        for pair, side in fresh.items():
            own[pair] = side
        for other, common in zip(others, self._common[-1], strict=True):
            both = [(first, side) for pair, side in fresh.items() if (first := other.get(pair)) is not None]
            common.same.add(float(first == side) for first, side in both)
            common.first += sum(first for first, _ in both)
            common.second += sum(side for _, side in both)
        return len(row.pairs) - len(fresh)

    def agreement(self, first: int, second: int) -> Agreement:
        """Return the agreement of two runs by their indices, the lower one first."""
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
    """Return for each kept pair its hash and the winning side, 0 or 1, by the order of hashes of prompt and text.

    The hashes depend on the prompt, so that both sides are equally likely to win even if many prompts share the same
    refusal. Cohen's kappa needs that for its chance agreement.
    """
    sides: list[tuple[int, int]] = []
    prompt = row.prompt.to_messages()
    for chosen, rejected in row.kept():
        won, lost = (content_hash([prompt, row.candidates[number].text]) for number in (chosen, rejected))
        sides.append((int(content_hash(sorted((won, lost))), 16), int(won > lost)))
    return sides


def _kappa(observed: float | None, p: float, q: float) -> float | None:
    """Return Cohen's kappa of two runs that prefer the second side in shares `p` and `q` of the pairs."""
    return None if observed is None else beyond_chance(observed, p * q + (1 - p) * (1 - q))
