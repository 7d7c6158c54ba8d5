# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai journal show|stats|export FILE`: read the journal of a generation run."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from nemo_aligner_cai.commands.common.parser import Parser
from nemo_aligner_cai.commands.common.terminal import note_line, write_line
from nemo_aligner_cai.engine.journal_entries import read_entries
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import require_file, write_jsonl
from nemo_aligner_cai.files.output_paths import refuse_same

_WIDTH = 100
"""Characters of a reply in a listing."""


def add_arguments(parser: Parser) -> None:
    """Declare the arguments of `cai journal`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="list the calls: step, record and the beginning of the reply")
    stats = actions.add_parser("stats", help="count calls, tokens and failures by step")
    export = actions.add_parser("export", help="write the calls as JSON lines with whole conversations")
    parser.examples = ("cai journal stats rl_cai/cai_comparisons.journal.jsonl",)
    show.examples = ("cai journal show rl_cai/cai_comparisons.journal.jsonl --step judge",)
    stats.examples = parser.examples
    export.examples = ("cai journal export rl_cai/cai_comparisons.journal.jsonl calls.jsonl",)
    for action in (show, stats, export):
        action.add_argument("file", help="the journal of a run, such as cai_comparisons.journal.jsonl")
    for action in (show, export):
        action.add_argument("--step", help="only calls of this step (default: of all)")
        action.add_argument("--record", help="only calls of this record, by the id of its row (default: of all)")
    export.add_argument("output", help="the file to write")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(args: argparse.Namespace) -> int:
    """Run the action."""
    if args.action == "show":
        _show(_calls(args.file, args.step, args.record))
    elif args.action == "stats":
        _show_stats(args.file)
    else:
        refuse_same([args.file], [args.output])
        written = write_jsonl(args.output, _calls(args.file, args.step, args.record), overwrite=args.overwrite)
        write_line(f"{args.output}: {written} calls")
    return 0


def _show(calls: Iterable[dict[str, Any]]) -> None:
    for call in calls:
        scores: dict[str, float] = call["choice_logprobs"] or {}
        reply = call["text"] or ", ".join(f"{choice}: {score:.3f}" for choice, score in scores.items())
        write_line(f"{call['record']} {call['step']:>12} {' '.join(reply.split())[:_WIDTH]}")


def _show_stats(path: str) -> None:
    calls, cut, tokens, failures = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for entry in _entries(path):
        if entry["kind"] == "call":
            calls[entry["step"]] += 1
            cut[entry["step"]] += entry["finish_reason"] == "length"
            tokens[entry["step"]] += entry["usage"][1] if entry["usage"] else 0
        elif entry["kind"] == "failure":
            failures[f"{entry['step']}: {entry['reason']}"] += 1
    for step, count in calls.items():
        write_line(f"{step:>12} {count:>8} calls {cut[step]:>8} truncated {tokens[step]:>10} tokens")
    for reason, count in failures.items():
        write_line(f"failed permanently, {reason}: {count}")


def _entries(path: str) -> Iterator[dict[str, Any]]:
    damaged = read = 0
    for offset, _, entry in read_entries(require_file(path)):
        if entry is None:
            damaged += 1
            continue
        if entry.get("kind") not in ("call", "prefix", "failure", "served"):
            raise UsageError(f"{path}: not a journal (byte {offset})")
        read += 1
        yield entry
    if not read:
        raise UsageError(f"{path}: not a journal, no line is an entry" if damaged else f"{path}: has no complete line")
    if damaged:
        note_line(f"{path}: skipped {damaged} damaged lines")


def _calls(path: str, step: str | None, record: str | None) -> Iterator[dict[str, Any]]:
    prefixes: dict[str | None, list[Any]] = {None: []}
    incomplete = 0
    for entry in _entries(path):
        if entry["kind"] == "prefix":
            prefixes[entry["id"]] = entry["messages"]
        elif entry["kind"] == "call" and step in (None, entry["step"]) and record in (None, entry["record"]):
            request = entry["request"]
            examples = prefixes.get(request.pop("prefix"))
            if examples is None:
                incomplete += 1
                continue
            request["messages"] = examples + request["messages"]
            yield entry
    if incomplete:
        note_line(f"{path}: skipped {incomplete} calls whose few-shot examples are in a damaged line")
