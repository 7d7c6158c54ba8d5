# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the steps of a generation stage and writes its rows in input order, with complete row counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import orjson

from nemo_aligner_cai.engine.engine import Engine, HasId, Outcome, Step
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.progress import Prices, ProgressReporter, show_progress
from nemo_aligner_cai.engine.served_models import check_served
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, RowCounts, atomic_writer

R = TypeVar("R", bound=HasId)
Row = Mapping[str, Any]
REMOVED_REASONING = "replies with thoughts, which were cut"
"""Name of their count in `Summary.facts`."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run. Only `seed` affects its output.

    Attributes:
        seed: seed of everything that is drawn.
        resume: continue from the existing journal, and replace existing outputs.
        overwrite: start again, and replace existing files.
        progress: show a progress bar or log lines.
        total: number of prompts, for the progress display, if known.
        prices: token prices, for the progress display and the summary, if known.
        ask_for_models: compare the model that a server reports with the one that produced the journal's replies. Not
            needed for a server that the caller starts itself and whose model has a unique name.
    """

    seed: int = 1234
    resume: bool = False
    overwrite: bool = False
    progress: bool = True
    total: int | None = None
    prices: Prices | None = None
    ask_for_models: bool = True


@dataclass(frozen=True)
class Output:
    """A JSONL file. `rows` converts a record to rows, dropped records only with `include_skipped`."""

    path: Path
    rows: Callable[[Any], Iterable[Row]]
    include_skipped: bool = False


def left_out_path(path: PathLike) -> Path:
    """Return the path of the list of dropped prompts, with reasons, that belongs to an output."""
    return companion(path, "left_out.jsonl")


def companion(path: PathLike, ending: str) -> Path:
    """Return the path of a file that belongs to another one: rows.jsonl -> rows.left_out.jsonl."""
    path = Path(path)
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.{ending}")


async def run_stage(
    title: str,
    records: Iterable[R],
    steps: Sequence[Step[R]],
    outputs: Sequence[Output],
    *,
    journal_path: PathLike,
    options: RunOptions,
    read: RowCounts | None,
    prompt_of: Callable[[R], Any],
    facts_of: Callable[[R], Counter[str]],
) -> Summary:
    """Run steps over records and write the rows.

    Args:
        title: title of the progress display.
        records: read lazily.
        steps: the chain.
        outputs: files to write. The list of dropped prompts is named after the first one.
        journal_path: the journal.
        options: seed, resuming, display.
        read: row counts of reading the prompts, complete once all are read; they are added to the summary's.
        prompt_of: returns a record's prompt as JSON, for the list of dropped prompts.
        facts_of: returns a record's contribution to the summary's facts, also for dropped records.

    Returns:
        The summary. Call `Summary.check` after saving everything that depends on it.

    Raises:
        UsageError: an output or the journal exists and may not be replaced. Nothing was sent.
        ServerRefused: a server rejects every request.
        CaiError: writing failed.
    """
    overwrite = options.overwrite or options.resume
    clients = {id(step.client): step.client for step in steps}.values()
    summary = Summary()
    started, before = time.monotonic(), [replace(client.stats) for client in clients]
    with ExitStack() as files:
        writers = [files.enter_context(atomic_writer(output.path, overwrite=overwrite)) for output in outputs]
        skipped = files.enter_context(atomic_writer(left_out_path(outputs[0].path), overwrite=True))
        journal = Journal.open(journal_path, resume=options.resume, overwrite=options.overwrite)
        reporter = ProgressReporter([client.stats for client in clients], options.total, options.prices)
        progress = show_progress(title, reporter) if options.progress else None
        engine = Engine(seed=options.seed, journal=journal, progress=progress)

        def write(outcome: Outcome[R]) -> None:
            record, reason = outcome.record, outcome.skipped
            summary.counts.rows_in += 1
            summary.facts.update(facts_of(record))
            if reason is None:
                summary.counts.written += 1
            else:
                summary.counts.skip(reason.reason)
                summary.faults += reason.fault
                if reason.fault and summary.first_fault is None:
                    summary.first_fault = reason.detail
                row = {"id": record.id, "prompt": prompt_of(record), "reason": reason.reason, "detail": reason.detail}
                _write_rows(skipped, [row])
            for output, writer in zip(outputs, writers, strict=True):
                if reason is None or output.include_skipped:
                    _write_rows(writer, output.rows(record))

        try:
            if options.ask_for_models:
                await check_served(journal, clients, warn=True)
            await engine.run(records, steps, write)
            if options.ask_for_models:
                # The server may have been unavailable at the beginning, or replaced since.
                await check_served(journal, clients, warn=False)
        finally:
            if progress is not None:
                progress.close(engine.stats)
            await journal.close()
    stats = engine.stats
    summary.seconds = time.monotonic() - started
    summary.calls, summary.reused, summary.failed = stats.calls.total(), stats.reused.total(), stats.failed
    if stats.with_reasoning:
        summary.facts[REMOVED_REASONING] = stats.with_reasoning
    for client, start in zip(clients, before, strict=True):
        summary.retries += client.stats.retries - start.retries
        summary.prompt_tokens += client.stats.prompt_tokens - start.prompt_tokens
        summary.completion_tokens += client.stats.completion_tokens - start.completion_tokens
    if read is not None:
        # From the rows of the file to the written records.
        summary.counts.rows_in = read.rows_in
        summary.counts.skipped.update(read.skipped)
        summary.counts.noted.update(read.noted)
    summary.counts.check()
    if options.prices is not None:
        summary.cost = options.prices.cost(summary.prompt_tokens, summary.completion_tokens)
    return summary


def _write_rows(handle: BinaryIO, rows: Iterable[Row]) -> None:
    for row in rows:
        try:
            handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        except TypeError as error:
            raise CaiError(f"a record cannot be written as JSON: {error}") from error
