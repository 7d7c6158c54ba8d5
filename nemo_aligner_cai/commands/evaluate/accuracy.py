# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai accuracy FILE`: the accuracy of saved verdicts or saved reward scores on pairs with a known better reply.

Input:  verdicts of a judge (JudgeBench's files, or the rows of `cai judge-accuracy`), or scores of a reward model
        (JudgeBench's, RewardBench's or RLHFlow's files), or pairs in any format for --reward-server; see
        `evaluation.known_answers`
Output: a judge's accuracy by three rules; or a reward model's accuracy, calibration and preference for length; of all
        pairs and by category, as tables and as --json
"""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import open_console, rate_cell, table_of
from nemo_aligner_cai.commands.evaluate.json_output import add_json_flags, checked_input
from nemo_aligner_cai.errors import FormatError, UsageError
from nemo_aligner_cai.evaluation.known_answers.judge_accuracy import Accuracy
from nemo_aligner_cai.evaluation.known_answers.reward_accuracy import RewardAccuracy, reward_accuracy
from nemo_aligner_cai.evaluation.known_answers.reward_scores import has_scores, read_scored
from nemo_aligner_cai.evaluation.known_answers.reward_server import RewardServer, read_pairs, scored_pairs
from nemo_aligner_cai.evaluation.known_answers.saved_verdicts import read_saved
from nemo_aligner_cai.files import read_jsonl, write_json, write_jsonl

RULE_COLUMNS = {
    "strict": "strict, %",
    "judgebench": "JudgeBench, %",
    "judgebench_ties": "ties, %",
    "judgebench_wrong": "wrong, %",
    "soft": "soft, %",
}


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai accuracy`."""
    parser.examples = ("cai accuracy scores.jsonl", "cai accuracy judged.jsonl --json accuracy.json")
    parser.add_argument("file", metavar="FILE", help="saved verdicts or scores, .jsonl or .json")
    parser.add_argument(
        "--reward-server",
        type=_address,
        metavar="HOST:PORT",
        help="score the pairs of FILE with this reward model: NeMo-Aligner's reward server, or a critic that is one",
    )
    parser.add_argument("--scores", metavar="OUT", help="with --reward-server: write the pairs with their scores")
    parser.effect("scores", when=lambda args: args.reward_server is not None, otherwise="without --reward-server")
    add_json_flags(parser, "scores")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, it is {text!r}")
    return host, int(port)


def run(args: argparse.Namespace) -> int:
    """Read the file, show its figures and write them."""
    file = checked_input(args)
    console = open_console()
    if args.reward_server:
        if not args.scores:
            raise UsageError("--reward-server needs --scores OUT, for the pairs with their scores")
        rows = scored_pairs(read_pairs(file), RewardServer(*args.reward_server))
        file = Path(args.scores)
        write_jsonl(file, rows, overwrite=args.overwrite)
    if _are_scores(file):
        rewards = reward_accuracy(list(read_scored(file)))
        _show_rewards(console, rewards)
        figures = {"file": str(file), "kind": "reward scores", **rewards.to_dict()}
    else:
        accuracy = Accuracy()
        for item in read_saved(file):
            accuracy.add(item)
        show_rules(console, [("all items", accuracy), *sorted(accuracy.categories.items())])
        figures = {"file": str(file), "kind": "verdicts", **accuracy.to_dict()}
    if args.json:
        write_json(args.json, figures, overwrite=args.overwrite)
    return 0


def _are_scores(file: Path) -> bool:
    for line, row in islice(read_jsonl(file), 1):
        try:
            return has_scores(row)
        except UsageError as error:
            raise FormatError.at(file, line, str(error)) from error
    raise UsageError(f"{file}: has no rows")


def show_rules(console: Console, parts: Sequence[tuple[str, Accuracy]]) -> None:
    """Show a judge's accuracy by each rule, a row for each part of the items."""
    rows: list[Sequence[object]] = []
    for name, part in parts:
        rates = part.rules.rates()
        rows.append((name, part.asked, part.rules.unparsed, *(rate_cell(rates.get(rule)) for rule in RULE_COLUMNS)))
    console.print(table_of(("accuracy by rule", "items", "unparsed", *RULE_COLUMNS.values()), rows))


def _show_rewards(console: Console, rewards: RewardAccuracy) -> None:
    length, forecast = rewards.length, rewards.calibration
    rows: list[tuple[str, object]] = [
        ("pairs", rewards.pairs),
        ("equal scores", rewards.ties),
        ("accuracy, %", rewards.accuracy),
        ("mean probability of the preferred reply, %", f"{100 * forecast.predicted:.2f}"),
        ("expected calibration error, %", f"{100 * forecast.ece:.2f}"),
        ("Brier score", f"{forecast.brier:.4f}"),
        ("log loss, nats", f"{forecast.log_loss:.4f}"),
        ("rank correlation of length and score", "-" if length.correlation is None else f"{length.correlation:.2f}"),
        ("longer reply preferred, %", rate_cell(length.longer_preferred)),
        ("longer reply better, %", rate_cell(length.longer_better)),
        ("accuracy if the longer is better, %", rate_cell(length.accuracy_if_longer_better)),
        ("accuracy if the shorter is better, %", rate_cell(length.accuracy_if_shorter_better)),
    ]
    console.print(table_of(("reward model", ""), rows))
    if rewards.categories:
        parts = [(name, rate.n, rate) for name, rate in rewards.categories.items()]
        console.print(table_of(("category", "prompts", "accuracy, %"), parts))
    bins = [(f"{100 * one.predicted:.1f}", one.observed.n, one.observed) for one in forecast.bins]
    console.print(table_of(("probability, %", "pairs", "preferred reply is better, %"), bins))
