# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Ensemble: several principles for each pair, and the mean of their probabilities (arXiv 2212.08073, section 4.1).

The probabilities are averaged within each order first; then the orders are compared, as with a single principle.
"""

from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.judges.chain_of_thought import ChainOfThoughtStrategy
from nemo_aligner_cai.judges.multiple_choice import MultipleChoiceStrategy
from nemo_aligner_cai.judges.pair_judge import PairJudge
from nemo_aligner_cai.judges.settings import JudgeSettings

ENSEMBLE_STRATEGIES = {"multiple-choice": MultipleChoiceStrategy, "chain-of-thought": ChainOfThoughtStrategy}


def ensemble(settings: JudgeSettings) -> PairJudge:
    """Several principles per pair, their probabilities averaged; each asked as multiple choice or chain of thought."""
    if settings.ensemble_of not in ENSEMBLE_STRATEGIES:
        known = " or ".join(ENSEMBLE_STRATEGIES)
        raise UsageError(f"judge: an ensemble consists of {known}, not of {settings.ensemble_of!r}")
    strategy = ENSEMBLE_STRATEGIES[settings.ensemble_of](settings)
    return PairJudge("ensemble", strategy, settings, principles_per_pair=settings.ensemble)
