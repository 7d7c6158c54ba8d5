# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai judge-accuracy FILE`: the accuracy of a judge on items with a known answer.

Input:  items of the paper, JudgeBench, RewardBench or HHH, see evaluation/known_answers/judge_item_formats.py, and a
        judge model
Output: OUTPUT.jsonl, a row per item with its verdicts; with its journal, dropped items and manifest; and the accuracy
        with its interval, of all items and by category, with position flips and unparsed answers

Replies to a conversation are compared with RL-CAI's strategies and code. The only principle is the items' question,
unless a constitution is given. Other questions are asked as multiple choice.
"""

import argparse
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.commands.common.flag_types import COUNT, PORT, SEED, host
from nemo_aligner_cai.commands.common.parser import Parser, never, recorded_flags
from nemo_aligner_cai.commands.common.terminal import open_console, rate_cell, table_of
from nemo_aligner_cai.commands.evaluate.accuracy import show_rules
from nemo_aligner_cai.commands.generate import clients, display, flags, judge_flags
from nemo_aligner_cai.commands.generate.script import resumable
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.engine.engine import Step
from nemo_aligner_cai.engine.resuming import adopt
from nemo_aligner_cai.engine.run_stage import Output, companion, left_out_path, run_stage
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.evaluation.known_answers.judge_accuracy import Accuracy
from nemo_aligner_cai.evaluation.known_answers.judge_item import JudgeItem
from nemo_aligner_cai.evaluation.known_answers.judge_items import JudgedItem, read_items
from nemo_aligner_cai.files import RowCounts, read_jsonl, write_json
from nemo_aligner_cai.judges.base import UNPARSED, Judge, position_line, position_rates, unparsed_line
from nemo_aligner_cai.judges.options_judge import OptionsJudge
from nemo_aligner_cai.judges.settings import build_judge
from nemo_aligner_cai.judges.steps import JudgePipeline, PreferenceSample
from nemo_aligner_cai.models import ModelClient
from nemo_aligner_cai.models.running import run_and_close
from nemo_aligner_cai.stages.manifest import Manifest, ManifestLocation, hashes
from nemo_aligner_cai.stages.run_files import check_files, input_files

DEFAULT_JUDGE = "multiple-choice"


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai judge-accuracy`."""
    parser.examples = (
        "cai judge-accuracy items.jsonl --model-url http://localhost:8000/v1 --model judge",
        "cai judge-accuracy items.jsonl --judge best-worst --constitution principles.yaml --dry-run",
    )
    parser.add_argument("file", metavar="FILE", help="items of the paper, JudgeBench, RewardBench or HHH")
    parser.add_argument(
        "--output", default="judge_accuracy.jsonl", metavar="ROWS", help="the file of verdicts to write"
    )
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")
    parser.add_argument("--num-examples", type=COUNT, metavar="N", help="number of items (default: all)")
    parser.add_argument("--seed", type=SEED, default=1234, help="seed of the judge's random choices")
    parser.add_argument("--host", type=host, default="localhost", help="host of a NeMo text-generation server")
    parser.add_argument("--port", type=PORT, default=5656, help="its port")
    judge_flags.add_strategy_flags(parser)
    flags.add_run_flags(parser)
    parser.effect("host", "port", when=flags.on_nemo_server, otherwise=flags.WITH_MODEL_URL)
    parser.effect(
        "judge_chat_template",
        when=lambda args: not flags.on_nemo_server(args),
        otherwise="without --model-url or --endpoints-dir",
    )
    parser.effect("turns", when=never, otherwise="here: items are not red-team dialogues")
    parser.effect("pairs", when=never, otherwise="here: two candidates make one pair")
    parser.set_defaults(judge=DEFAULT_JUDGE, pairs="one", sys_prompt_constitution_file_path=None, add_bos="False")


def run(args: argparse.Namespace) -> int:
    """Check the items, ask the judge about each, and show its accuracy."""
    count, questions, most_candidates, is_comparison = _survey(args.file, args.num_examples)
    judge = _judge(args, questions) if is_comparison else _options_judge(args)

    def steps(client: ModelClient) -> list[Step[PreferenceSample]]:
        return JudgePipeline(judge, client).steps(most_candidates)

    if args.preview is not None:
        first = read_items(args.file, counts=RowCounts(), limit=args.preview)
        display.show_preview(first, steps, NEMO_CHAT if flags.on_nemo_server(args) else None)
        return 0
    # One question per batch: NeMo's server needs a step for each token by which the prompts of a batch differ in
    # length, and items have all lengths.
    template = clients.judge_template(args)
    client = clients.model_client(args, NEMO_CHAT, batch_size=most_candidates, completions_template=template)
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch, "rows.jsonl") if args.dry_run else Path(args.output)
        journal = companion(rows, "journal.jsonl")
        if args.resume:
            adopt(rows.with_suffix(".journal.jsonl"), journal)
        if args.plan:
            items = read_items(args.file, counts=RowCounts(), limit=args.num_examples)
            display.show_plan(items, steps(client), flags.run_settings(args), journal)
            return 0
        manifest = _begin(args, rows, journal)
        with resumable(args):
            summary = _ask(args, steps(client), client, rows, journal, count)
        accuracy = _accuracy(rows)
        if args.json and not args.dry_run:
            write_json(args.json, _figures(accuracy, summary), overwrite=True)
        manifest.write(hashes([rows]), summary=summary.to_dict(), models={"judge": client.identity})
        _show(accuracy, summary, rows)
    if (failed := count - accuracy.asked) > Fraction(str(args.max_dropped)) * count:
        raise CaiError(
            f"{failed} of {count} items could not be asked, more than --max-dropped {args.max_dropped:g} allows: "
            f"{summary.counts}. The same command with --resume, and without --overwrite, tries these again"
        )
    return 0


def _survey(file: str, limit: int | None) -> tuple[int, list[str], int, bool]:
    """Read all items, to find errors before any paid request.

    Returns:
        The number of items, their questions, the largest number of candidates, and whether the candidates are replies
        to a conversation.
    """
    counts = RowCounts()
    questions: dict[str, None] = {}
    most, is_comparison = 0, True
    for item in read_items(file, counts=counts, limit=limit):
        questions[item.question] = None
        most, is_comparison = max(most, len(item.candidates)), item.is_comparison
    if not counts.written:
        raise UsageError(f"{file}: no item: {counts}")
    return counts.written, list(questions), most, is_comparison


def _judge(args: argparse.Namespace, questions: Sequence[str]) -> Judge:
    constitution = None
    if args.sys_prompt_constitution_file_path is None:
        if len(questions) > 1:
            raise UsageError(
                f"{args.file}: the items ask {len(questions)} different questions, and a judge has one constitution "
                "for all; give one with --sys-prompt-constitution-file-path, or split the file"
            )
        constitution = Constitution((Principle("item", "", "", questions[0]),), "items")
    return build_judge(judge_flags.judge_config(args), seed=args.seed, constitution=constitution)


def _options_judge(args: argparse.Namespace) -> Judge:
    if args.judge != DEFAULT_JUDGE or args.sys_prompt_constitution_file_path is not None:
        raise UsageError(
            f"{args.file}: these items ask a question with several answers and do not compare replies: remove --judge "
            "and --sys-prompt-constitution-file-path"
        )
    return OptionsJudge(both_orders=args.both_orders)


def _begin(args: argparse.Namespace, rows: Path, journal: Path) -> Manifest:
    """Check all files before the first request."""
    location = ManifestLocation(companion(rows, "manifest.json"), rows.name, "output", (rows.parent,))
    inputs = input_files(args.file, args.sys_prompt_constitution_file_path, args.judge_few_shot_path)
    outputs = [rows, left_out_path(rows)]
    if args.json and not args.dry_run:
        outputs.append(Path(args.json))
    check_files(inputs, outputs, journal=journal, manifest=location.path, resume=args.resume, overwrite=args.overwrite)
    return Manifest.begin(location, recorded_flags(args), inputs)


def _ask(
    args: argparse.Namespace,
    steps: Sequence[Step[PreferenceSample]],
    client: ModelClient,
    rows: Path,
    journal: Path,
    count: int,
) -> Summary:
    read = RowCounts()
    work = run_stage(
        "judge accuracy",
        read_items(args.file, counts=read, limit=args.num_examples),
        steps,
        [Output(rows, _rows, include_skipped=True)],
        journal_path=journal,
        run=flags.run_settings(args),
        total=count,
        read=read,
    )
    return run_and_close(work, client)


def _rows(item: JudgeItem) -> list[dict[str, Any]]:
    return [JudgedItem.of(item).to_row()]


def _accuracy(rows: Path) -> Accuracy:
    accuracy = Accuracy()
    for _, row in read_jsonl(rows):
        accuracy.add(JudgedItem.from_row(row))
    return accuracy


def _figures(accuracy: Accuracy, summary: Summary) -> dict[str, Any]:
    return {**accuracy.to_dict(), "unparsed": summary.facts[UNPARSED], **position_rates(summary.facts)}


def _show(accuracy: Accuracy, summary: Summary, rows: Path) -> None:
    unparsed = unparsed_line(summary.facts, (verdict for row in read_judged(rows) for verdict in row.verdicts))
    lines = [line for line in (position_line(summary.facts), unparsed) if line]
    display.show_summary("judge accuracy", summary, lines)
    chance = accuracy.by_chance
    figures: list[tuple[str, object]] = [
        ("asked", accuracy.asked),
        ("answered", accuracy.answered),
        ("accuracy, %", rate_cell(accuracy.rate)),
        ("accuracy of answered, %", rate_cell(accuracy.rate_of_answered)),
        ("by chance, %", "-" if chance is None else f"{100 * chance:.1f}"),
        ("unparsed", summary.facts[UNPARSED]),
    ]
    console = open_console()
    console.print(table_of(("items", ""), figures))
    show_rules(console, [("all items", accuracy)])
    if accuracy.categories:
        parts = sorted(accuracy.categories.items())
        table = [(name, part.asked, part.answered, rate_cell(part.rate)) for name, part in parts]
        console.print(table_of(("category", "asked", "answered", "accuracy, %"), table))
