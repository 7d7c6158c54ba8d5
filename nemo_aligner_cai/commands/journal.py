# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""`cai journal show|stats|export FILE`: read the journal of a generation run."""

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_aligner_cai.commands.common.terminal import note_line, write_line
from nemo_aligner_cai.engine.journal import read_entries
from nemo_aligner_cai.errors import UsageError
from nemo_aligner_cai.files import require_file, write_jsonl
from nemo_aligner_cai.files.same_files import refuse_same

_WIDTH = 100
"""Characters of a text that a listing shows."""


def add_parser(subparsers: Any) -> None:
    """Declare `cai journal`."""
    parser: argparse.ArgumentParser = subparsers.add_parser("journal", help="read the journal of a generation run")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="list calls: step, record and the beginning of the reply")
    stats = actions.add_parser("stats", help="count calls, tokens and failures by step")
    export = actions.add_parser("export", help="write the calls as JSON lines with whole conversations")
    for action, work in ((show, run_show), (stats, run_stats), (export, run_export)):
        action.add_argument("file", help="a ....journal.jsonl")
        action.set_defaults(run=work)
    for action in (show, export):
        action.add_argument("--step", help="only this step's calls")
        action.add_argument("--record", help="only this record's calls (the id of a row)")
    export.add_argument("output", help="the file to write")
    export.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run_show(args: argparse.Namespace) -> int:
    """List calls."""
    for call in _calls(args.file, args.step, args.record):
        scores: dict[str, float] = call["choice_logprobs"] or {}
        said = call["text"] or ", ".join(f"{choice}: {score:.3f}" for choice, score in scores.items())
        write_line(f"{call['record']} {call['step']:>12} {' '.join(said.split())[:_WIDTH]}")
    return 0


def run_stats(args: argparse.Namespace) -> int:
    """Count calls by step."""
    calls, cut, tokens, failures = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for entry in _entries(args.file):
        if entry["kind"] == "call":
            calls[entry["step"]] += 1
            cut[entry["step"]] += entry["finish_reason"] == "length"
            tokens[entry["step"]] += entry["usage"][1] if entry["usage"] else 0
        elif entry["kind"] == "failure":
            failures[f"{entry['step']}: {entry['reason']}"] += 1
    for step, count in calls.items():
        write_line(f"{step:>12} {count:>8} calls {cut[step]:>8} cut at the limit {tokens[step]:>10} tokens")
    for reason, count in failures.items():
        write_line(f"failed for good, {reason}: {count}")
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write calls with whole conversations."""
    refuse_same([args.file], [args.output])
    written = write_jsonl(args.output, _calls(args.file, args.step, args.record), overwrite=args.overwrite)
    write_line(f"{args.output}: {written} calls")
    return 0


def _entries(path: str) -> Iterator[dict[str, Any]]:
    damaged = 0
    for offset, _, entry in read_entries(require_file(path)):
        if entry is None:
            damaged += 1
            continue
        if entry.get("kind") not in ("call", "prefix", "failure", "served"):
            raise UsageError(f"{Path(path)}: is not a journal (byte {offset})")
        yield entry
    if damaged:
        note_line(f"{path}: {damaged} damaged lines are passed over")


def _calls(path: str, step: str | None, record: str | None) -> Iterator[dict[str, Any]]:
    prefixes: dict[str, list[Any]] = {}
    for entry in _entries(path):
        if entry["kind"] == "prefix":
            prefixes[entry["id"]] = entry["messages"]
        elif entry["kind"] == "call" and step in (None, entry["step"]) and record in (None, entry["record"]):
            request = entry["request"]
            request["messages"] = prefixes.get(request.pop("prefix"), []) + request["messages"]
            yield entry
