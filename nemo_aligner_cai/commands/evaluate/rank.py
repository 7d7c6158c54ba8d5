# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai rank FILE`: a ranking of models from comparisons in pairs.

Input:  comparisons as CSV or JSON lines, such as evalica's or Chatbot Arena's; see `evaluation.preferences.pair_files`
Output: for each model its Bradley-Terry strength with a 95 % interval, its win rate and its Elo rating, as a table and
        as --json
"""

import argparse
from collections import Counter
from dataclasses import asdict

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.commands.evaluate.json_output import add_json_flags, checked_input
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.evaluation.preferences.pair_files import read_pair_results
from nemo_aligner_cai.evaluation.statistics.bradley_terry import Strength, bradley_terry
from nemo_aligner_cai.evaluation.statistics.win_rates import average_win_rates, elo, win_rates
from nemo_aligner_cai.files import write_json


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai rank`."""
    parser.examples = ("cai rank comparisons.csv", "cai rank comparisons.csv --baseline helpful-only")
    parser.add_argument("file", metavar="FILE", help="comparisons, .csv or .jsonl")
    parser.add_argument("--baseline", metavar="MODEL", help="the model with strength 0 (default: their mean is 0)")
    add_json_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Read the comparisons, show the ranking and write it."""
    file = checked_input(args)
    results = list(read_pair_results(file))
    if not results:
        raise UsageError(f"{file}: has no rows")
    if args.baseline not in (None, *(name for one in results for name in (one.first, one.second))):
        raise UsageError(f"--baseline {args.baseline}: no comparison in {file} has this model")
    ranking = bradley_terry(results, baseline=args.baseline)
    averages, ratings = average_win_rates(win_rates(results)), elo(results)
    games = Counter(name for one in results for name in (one.first, one.second))
    rows = [
        (name, games[name], str(strength), f"{100 * averages[name]:.1f}", f"{ratings[name]:.1f}")
        for name, strength in sorted(ranking.strengths.items(), key=lambda item: -_rank(item[1]))
    ]
    title = "model" if ranking.zero is None else f"model (strength of {ranking.zero} = 0)"
    open_console().print(table_of((title, "comparisons", "strength, log odds", "win rate, %", "Elo"), rows))
    if args.json:
        models = {
            name: {
                "comparisons": games[name],
                "strength": asdict(strength),
                "average_win_rate": averages[name],
                "elo": ratings[name],
            }
            for name, strength in ranking.strengths.items()
        }
        figures = {"file": str(file), "zero": ranking.zero, "prompts": ranking.prompts, "models": models}
        write_json(args.json, figures, overwrite=args.overwrite)
    return 0


def _rank(strength: Strength) -> float:
    """Return a number to sort by: the estimate; its bound for a model without one, or the mean if it has none."""
    return next((one for one in (strength.value, strength.low, strength.high) if one is not None), 0.0)
