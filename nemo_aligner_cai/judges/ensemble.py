# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""An ensemble: several principles for each pair, and the mean of their probabilities (arXiv 2212.08073, section 4.1).

The mean is taken within each order first; then the two orders are compared, as with a single principle.
"""

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.chain_of_thought import chain_of_thought_ballot
from nemo_aligner_cai.judges.multiple_choice import multiple_choice_ballot
from nemo_aligner_cai.judges.pair_judge import PairJudge
from nemo_aligner_cai.judges.settings import JudgeSettings

BALLOTS = {"multiple-choice": multiple_choice_ballot, "chain-of-thought": chain_of_thought_ballot}
"""The strategies that an ensemble can be made of."""


def ensemble(settings: JudgeSettings) -> PairJudge:
    """Several principles per pair, their probabilities averaged; each asked as multiple choice or chain of thought."""
    if settings.ensemble_of not in BALLOTS:
        raise UsageError(f"judge: an ensemble is made of {' or '.join(BALLOTS)}, not of {settings.ensemble_of!r}")
    return PairJudge(
        "ensemble",
        settings.principles,
        BALLOTS[settings.ensemble_of](settings),
        settings.seed,
        settings.pairs,
        settings.both_orders,
        settings.margin,
        principles_per_pair=settings.ensemble,
    )
