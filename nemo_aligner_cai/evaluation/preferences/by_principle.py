# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Rates at which a trained model follows each principle better than another model.

Input:  rows of the comparisons file of `cai evaluate`; see `pairwise`
Output: {"harmless": Rate(0.64, ...), ...}: how often the model's reply to a held-out prompt wins by that principle
"""

from collections import defaultdict
from collections.abc import Iterable

from nemo_aligner_cai.evaluation.preferences.audit import outcomes_of
from nemo_aligner_cai.evaluation.preferences.compared_rows import ComparedRow
from nemo_aligner_cai.evaluation.statistics.rates import ClusteredMean, Rate


def wins_by_principle(rows: Iterable[ComparedRow], model: str, opponent: str) -> dict[str, Rate]:
    """Return a model's win rate against another one by each principle, over the prompts that it judged.

    A win is a reply that both orders prefer; orders that disagree, or see no difference, are half a win. Unparsed
    verdicts are not counted, nor are equal replies, which no principle judges.

    Args:
        rows: the comparisons.
        model: a model.
        opponent: another one.
    """
    found: defaultdict[str, ClusteredMean] = defaultdict(ClusteredMean)
    for row in rows:
        numbers = row.models
        pair = frozenset((numbers.get(model), numbers.get(opponent)))
        for outcome in outcomes_of(row.judged.verdicts):
            if outcome.shown == pair and outcome.parsed:
                won = outcome.preference and outcome.preference[0] == numbers[model]
                found[outcome.principle].add([0.5 if won is None else float(won)])
    return {name: rate for name, mean in sorted(found.items()) if (rate := mean.rate) is not None}
