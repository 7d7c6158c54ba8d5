# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Coverage of the 95 % intervals of Bradley-Terry strengths, in simulated evaluations with a known truth.

Each simulation judges every pair of models on every prompt in both orders. The results of one prompt are correlated:
with probability `SHARED`, one draw for the whole prompt decides a comparison, instead of a draw of its own. The judge
prefers the first position and sometimes ties. The true strengths are those of the expected scores.
"""

import argparse
import math
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations

from benchmarks.table import Figure, show
from nemo_aligner_cai.engine.seeds import generator
from nemo_aligner_cai.evaluation.statistics.bradley_terry import BradleyTerry, bradley_terry
from nemo_aligner_cai.evaluation.statistics.win_rates import PairResult

BAR = 0.93
STRENGTHS = {3: (0.0, 0.4, 1.2), 6: (0.0, 0.2, 0.5, 0.9, 1.4, 2.0)}
"""Number of models -> their strengths against an unbiased judge, in log odds."""
SHARED, POSITION, TIES = 0.3, 0.4, 0.15
"""Share of comparisons that the prompt decides; log odds for the first position; share of ties."""


def orders(strengths: Sequence[float]) -> Iterator[tuple[int, int, float]]:
    """The comparisons of one prompt: the models in the order shown, and the expected score of the first."""
    for first, second in combinations(range(len(strengths)), 2):
        for one, other in ((first, second), (second, first)):
            wins = 1 / (1 + math.exp(strengths[other] - strengths[one] - POSITION))
            yield one, other, TIES / 2 + (1 - TIES) * wins


def truth(strengths: Sequence[float]) -> BradleyTerry:
    """The strengths that an endless evaluation would find."""
    return bradley_terry([PairResult("expected", str(i), str(j), p) for i, j, p in orders(strengths)], baseline="0")


def simulated(strengths: Sequence[float], prompts: int, draws: random.Random) -> list[PairResult]:
    """The results of one evaluation."""
    results: list[PairResult] = []
    for prompt in range(prompts):
        common = draws.random()
        for first, second, expected in orders(strengths):
            one_order = first < second
            # A shared draw favors the same model in both orders.
            shared = common if one_order else 1 - common
            u = shared if draws.random() < SHARED else draws.random()
            wins = (expected - TIES / 2) / (1 - TIES)
            score = 0.5 if draws.random() < TIES else float(u < wins)
            results.append(PairResult(str(prompt), str(first), str(second), score))
    return results


def coverage(models: int, *, simulations: int, prompts: int) -> dict[str, float]:
    """The share of simulations in which each model's interval contains its true strength, by model."""
    expected = truth(STRENGTHS[models]).strengths
    covered = dict.fromkeys([name for name in expected if name != "0"], 0)
    for number in range(simulations):
        draws = generator(0, "coverage of Bradley-Terry intervals", models, prompts, number)
        found = bradley_terry(simulated(STRENGTHS[models], prompts, draws), baseline="0").strengths
        for name in covered:
            low, high, value = found[name].low, found[name].high, expected[name].value
            assert value is not None  # every expected score is strictly between 0 and 1
            covered[name] += (low is None or low <= value) and (high is None or value <= high)
    return {name: count / simulations for name, count in covered.items()}


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage", description="Coverage of the intervals of Bradley-Terry strengths."
    )
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--prompts", type=int, nargs="+", default=[50, 200])
    args = parser.parse_args()
    figures: list[Figure] = []
    for models in STRENGTHS:
        for prompts in args.prompts:
            found = coverage(models, simulations=args.simulations, prompts=prompts)
            worst = min(found.values())
            shown = ", ".join(f"{share:.1%}" for share in found.values())
            figures.append(Figure(f"{models} models, {prompts} prompts", shown, f">= {BAR:.0%}", worst >= BAR))
    notes = [f"{args.simulations:,} simulations each; one figure for each model but the baseline"]
    return show("Coverage of 95 % intervals", figures, notes=notes)


if __name__ == "__main__":
    sys.exit(main())
