# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai judge-accuracy FILE`: how often a judge is right, on items with a known answer.

Input:  items such as the paper's (see evaluation/judge_items.py), and a judge model
Output: OUTPUT.jsonl, a row for each item with its verdicts; its journal, left-out items and manifest beside it; and
        the accuracy with its interval, of all items and by category, with position flips and unparsed answers

Replies to a conversation are compared by the strategies of RL-CAI and the same code, with the question that the items
ask as the only principle, or with a constitution. Other questions are asked as multiple choice.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.commands.common.flag_types import COUNT, PORT, SEED, Parser, host, never, record_of
from nemo_aligner_cai.commands.common.terminal import open_console, table_of
from nemo_aligner_cai.commands.generate import generate_flags as flags
from nemo_aligner_cai.commands.generate import generate_run, judge_flags
from nemo_aligner_cai.constitution import Constitution, Principle
from nemo_aligner_cai.data.judged_row import read_judged
from nemo_aligner_cai.engine.engine import Step
from nemo_aligner_cai.engine.resuming import adopt
from nemo_aligner_cai.engine.stage import Output, RunOptions, companion, left_out_path, run_stage
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.evaluation.judge_accuracy import Accuracy
from nemo_aligner_cai.evaluation.judge_items import JudgedItem, JudgeItem, read_items
from nemo_aligner_cai.evaluation.rates import Rate
from nemo_aligner_cai.files import RowCounts, read_jsonl, write_json
from nemo_aligner_cai.judges.base import UNPARSED, Judge, position_line, position_rates, unparsed_line
from nemo_aligner_cai.judges.options_judge import OptionsJudge
from nemo_aligner_cai.judges.preference_sample import Judging, PreferenceSample
from nemo_aligner_cai.models import ModelClient
from nemo_aligner_cai.stages.checks import check_files, input_files
from nemo_aligner_cai.stages.judging import build_judge
from nemo_aligner_cai.stages.manifest import Manifest, Place, hashes

DEFAULT_JUDGE = "multiple-choice"


def add_parser(subparsers: Any) -> None:
    """Declare `cai judge-accuracy`."""
    parser: Parser = subparsers.add_parser("judge-accuracy", help="measure a judge on items with a known answer")
    parser.add_argument("file", metavar="FILE", help="items, as the paper's evaluations have them")
    parser.add_argument("--output", default="judge_accuracy.jsonl", metavar="ROWS", help="default: %(default)s")
    parser.add_argument("--json", metavar="OUT", help="write the figures to this file")
    parser.add_argument("--num-examples", type=COUNT, metavar="N", help="the first N items (default: all)")
    parser.add_argument("--seed", type=SEED, default=1234)
    parser.add_argument(
        "--host", type=host, default="localhost", help="of a NeMo text-generation server (default: localhost)"
    )
    parser.add_argument("--port", type=PORT, default=5656, help="likewise (default: 5656)")
    judge_flags.add_strategy_flags(parser)
    flags.add_run_flags(parser)
    parser.effect("host", "port", when=lambda args: not args.model_url, otherwise="with --model-url")
    parser.effect("judge_chat_template", when=lambda args: bool(args.model_url), otherwise="without --model-url")
    parser.effect("turns", when=never, otherwise="here: items are no red-team dialogues")
    parser.effect("pairs", when=never, otherwise="here: two candidates are one pair")
    # The principle is what the items ask for, and there are two candidates: one pair.
    parser.set_defaults(
        run=run, judge=DEFAULT_JUDGE, pairs="one", sys_prompt_constitution_file_path=None, add_bos="False"
    )


def run(args: argparse.Namespace) -> int:
    """Check the items, ask the judge about each, and show how often it is right."""
    count, questions, most_candidates, is_comparison = _survey(args)
    judge = _judge(args, questions) if is_comparison else _options_judge(args)

    def steps(client: ModelClient) -> list[Step[PreferenceSample]]:
        return Judging(judge, client).steps(most_candidates)

    if args.preview is not None:
        first = read_items(args.file, counts=RowCounts(), limit=args.preview)
        generate_run.show_preview(first, steps, None if args.model_url else NEMO_CHAT)
        return 0
    # One question to a batch: NeMo's server takes a step for each token by which the sentences of a batch differ, and
    # items are of all lengths.
    template = judge_flags.judge_template(args)
    client = flags.model_client(args, NEMO_CHAT, batch_size=most_candidates, completions_template=template)
    with tempfile.TemporaryDirectory() as scratch:
        files = _Files.named(args, Path(scratch) if args.dry_run else None)
        if args.resume:
            adopt(files.rows.with_suffix(".journal.jsonl"), files.journal)
        if args.plan:
            items = read_items(args.file, counts=RowCounts(), limit=args.num_examples)
            past = None if args.overwrite else files.journal
            generate_run.show_plan(items, steps(client), seed=args.seed, journal_path=past)
            return 0
        manifest = _begin(args, files)
        accuracy, summary, lines = _measure(args, client, steps(client), files, count)
        manifest.write(hashes([files.rows]), summary=summary.to_dict(), models={"judge": client.identity})
    _show(accuracy, summary, lines)
    if (failed := count - accuracy.asked) > Fraction(str(args.max_dropped)) * count:
        raise CaiError(
            f"{failed} of {count} items could not be asked, more than --max-dropped {args.max_dropped:g} allows: "
            f"{summary.counts}. The same command with --resume, and without --overwrite, tries these again"
        )
    return 0


@dataclass(frozen=True)
class _Files:
    """Where everything goes."""

    rows: Path
    figures: Path | None

    @classmethod
    def named(cls, args: argparse.Namespace, scratch: Path | None) -> "_Files":
        """The files that the flags name; those of a dry run are in `scratch`."""
        if scratch is not None:
            return cls(scratch / "rows.jsonl", scratch / "figures.json" if args.json else None)
        return cls(Path(args.output), Path(args.json) if args.json else None)

    @property
    def journal(self) -> Path:
        return companion(self.rows, "journal.jsonl")


def _begin(args: argparse.Namespace, files: _Files) -> Manifest:
    """Check all files before anything is asked."""
    place = Place(companion(files.rows, "manifest.json"), files.rows.name, "output", (files.rows.parent,))
    inputs = input_files(args.file, args.sys_prompt_constitution_file_path, args.judge_few_shot_path)
    outputs = [files.rows, left_out_path(files.rows), *([files.figures] if files.figures else [])]
    check_files(
        inputs, outputs, journal=files.journal, manifest=place.path, resume=args.resume, overwrite=args.overwrite
    )
    return Manifest.begin(place, record_of(args), inputs)


def _measure(
    args: argparse.Namespace, client: ModelClient, steps: Sequence[Step[PreferenceSample]], files: _Files, count: int
) -> tuple[Accuracy, Summary, list[str]]:
    """Ask about every item and write the figures; returns lines for people too."""
    read = RowCounts()
    items = read_items(args.file, counts=read, limit=args.num_examples)
    options = flags.run_settings(args).options(count)
    with flags.resumable(args):
        summary = asyncio.run(_ask(items, client, steps, files.rows, files.journal, options, read))
    accuracy = Accuracy()
    for _, row in read_jsonl(files.rows):
        accuracy.add(JudgedItem.from_row(row))
    unparsed = unparsed_line(summary.facts, (verdict for row in read_judged(files.rows) for verdict in row.verdicts))
    if files.figures:
        figures = {**accuracy.to_dict(), "unparsed": summary.facts[UNPARSED], **position_rates(summary.facts)}
        write_json(files.figures, figures, overwrite=True)
    return accuracy, summary, [line for line in (position_line(summary.facts), unparsed) if line]


def _survey(args: argparse.Namespace) -> tuple[int, list[str], int, bool]:
    """How many items there are, their questions, the most candidates of one, and whether those are replies.

    It reads everything, so that what is wrong in the file is known before anything is paid for.
    """
    counts = RowCounts()
    questions: dict[str, None] = {}
    most, is_comparison = 0, True
    for item in read_items(args.file, counts=counts, limit=args.num_examples):
        questions[item.question] = None
        most, is_comparison = max(most, len(item.candidates)), item.is_comparison
    if not counts.written:
        raise UsageError(f"{args.file}: no item: {counts}")
    return counts.written, list(questions), most, is_comparison


def _judge(args: argparse.Namespace, questions: Sequence[str]) -> Judge:
    if args.sys_prompt_constitution_file_path is not None:
        return build_judge(judge_flags.judge_config(args), seed=args.seed)
    if len(questions) > 1:
        raise UsageError(
            f"{args.file}: the items ask {len(questions)} different questions, and a judge has one constitution for "
            "all; give one with --sys-prompt-constitution-file-path, or split the file"
        )
    constitution = Constitution((Principle("item", "", "", questions[0]),), "items")
    return build_judge(judge_flags.judge_config(args), seed=args.seed, constitution=constitution)


def _options_judge(args: argparse.Namespace) -> Judge:
    if args.judge != DEFAULT_JUDGE or args.sys_prompt_constitution_file_path is not None:
        raise UsageError(
            f"{args.file}: these items ask a question of their own with several answers, and do not compare replies: "
            "leave out --judge and --sys-prompt-constitution-file-path"
        )
    return OptionsJudge(both_orders=args.both_orders)


async def _ask(
    items: Iterator[JudgeItem],
    client: ModelClient,
    steps: Sequence[Step[PreferenceSample]],
    rows: Path,
    journal: Path,
    options: RunOptions,
    read: RowCounts,
) -> Summary:
    try:
        return await run_stage(
            "judge accuracy",
            items,
            steps,
            [Output(rows, _rows, left_out=_rows)],
            journal_path=journal,
            options=options,
            read=read,
            prompt_of=lambda item: item.prompt.conversation.to_messages(),
            facts_of=lambda item: item.counts,
        )
    finally:
        await client.close()


def _rows(item: JudgeItem) -> list[dict[str, Any]]:
    return [JudgedItem.of(item).to_row()]


def _show(accuracy: Accuracy, summary: Summary, lines: Sequence[str]) -> None:
    chance = accuracy.by_chance
    rows: list[tuple[str, object]] = [
        ("asked", accuracy.asked),
        ("with an answer", accuracy.answered),
        ("accuracy, %", _rate(accuracy.rate)),
        ("of the answered, %", _rate(accuracy.rate_of_answered)),
        ("by chance, %", "-" if chance is None else f"{100 * chance:.1f}"),
        ("unparsed", summary.facts[UNPARSED]),
    ]
    generate_run.show_summary("judge accuracy", summary, lines)
    console = open_console()
    console.print(table_of(("items", ""), rows))
    if accuracy.categories:
        parts = sorted(accuracy.categories.items())
        table = [(name, part.asked, part.answered, _rate(part.rate)) for name, part in parts]
        console.print(table_of(("category", "asked", "answered", "accuracy, %"), table))


def _rate(rate: Rate | None) -> str:
    return "-" if rate is None else str(rate)
