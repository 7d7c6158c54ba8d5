# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the steps of a generation stage and writes its rows in input order, with complete row counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import orjson

from nemo_aligner_cai.engine.engine import Engine, HasId, Outcome, SkipRecord, Step, block_size
from nemo_aligner_cai.engine.journal import Journal, has_calls
from nemo_aligner_cai.engine.progress import Prices, ProgressReporter, show_progress
from nemo_aligner_cai.engine.served_models import check_served
from nemo_aligner_cai.engine.shards import MissingCalls, Shard
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, RowCounts, atomic_writer

R = TypeVar("R", bound=HasId)
Row = Mapping[str, Any]
REMOVED_REASONING = "replies with thoughts, which were cut"
"""Name of their count in `Summary.facts`."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run. Only `seed` and `shard` affect its output.

    Attributes:
        seed: seed of everything that is drawn.
        shard: make only the calls of this shard, and write only the journal; None makes all calls.
        sources: other journals whose calls are reused.
        no_calls: contact no server: every call must be in a journal. The run's own journal is read, too, if it exists.
        resume: continue from the existing journal, and replace existing outputs.
        overwrite: start again, and replace existing files.
        progress: show a progress bar or log lines.
        total: number of prompts, for the progress display, if known.
        prices: token prices, for the progress display and the summary, if known.
        ask_for_models: compare the model that a server reports with the one that produced the journal's replies. Not
            needed for a server that the caller starts itself and whose model has a unique name.
    """

    seed: int = 1234
    shard: Shard | None = None
    sources: tuple[Path, ...] = ()
    no_calls: bool = False
    resume: bool = False
    overwrite: bool = False
    progress: bool = True
    total: int | None = None
    prices: Prices | None = None
    ask_for_models: bool = True

    @property
    def replaces(self) -> bool:
        """True if existing outputs are replaced."""
        return self.resume or self.overwrite


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
        journal_path: the journal that the run writes.
        options: seed, shard, resuming, display. A shard writes no outputs.
        read: row counts of reading the prompts, complete once all are read; they are added to the summary's.
        prompt_of: returns a record's prompt as JSON, for the list of dropped prompts.
        facts_of: returns a record's contribution to the summary's facts, also for dropped records.

    Returns:
        The summary. Call `Summary.check` after saving everything that depends on it.

    Raises:
        UsageError: an output or the journal exists and may not be replaced. Nothing was sent.
        CallsMissing: a call is in no journal, and the run has no server. Nothing was written.
        ServerRefused: a server rejects every request.
        CaiError: writing failed.
    """
    clients = list({id(step.client): step.client for step in steps}.values())
    started, before = time.monotonic(), [replace(client.stats) for client in clients]
    block, journal_path, total = block_size(clients), Path(journal_path), options.total
    if options.shard is not None:
        outputs, records = (), options.shard.select(records, block)
        total = total and options.shard.size(total, block)
    missing = MissingCalls((*options.sources, journal_path), block)
    with ExitStack() as files:
        outcomes = _Outcomes(outputs, files, missing, prompt_of, facts_of, overwrite=options.replaces)
        journal = _open_journal(journal_path, options)
        reporter = ProgressReporter([client.stats for client in clients], total, options.prices)
        progress = show_progress(title, reporter) if options.progress else None
        engine = Engine(seed=options.seed, journal=journal, progress=progress, no_calls=options.no_calls)
        try:
            if options.ask_for_models and not options.no_calls:
                await check_served(journal, clients, warn=True)
            await engine.run(records, steps, outcomes.add)
            if options.ask_for_models and not options.no_calls:
                # The server may have been unavailable at the beginning, or replaced since.
                await check_served(journal, clients, warn=False)
        finally:
            if progress is not None:
                progress.close(engine.stats)
            await journal.close()
        missing.check()
    summary, stats = outcomes.summary, engine.stats
    summary.seconds = time.monotonic() - started
    summary.calls, summary.reused, summary.failed = stats.calls.total(), stats.reused.total(), stats.failed
    if stats.with_reasoning:
        summary.facts[REMOVED_REASONING] = stats.with_reasoning
    for client, start in zip(clients, before, strict=True):
        summary.retries += client.stats.retries - start.retries
        summary.prompt_tokens += client.stats.prompt_tokens - start.prompt_tokens
        summary.completion_tokens += client.stats.completion_tokens - start.completion_tokens
    if options.shard is not None:
        summary.in_shard = summary.counts.rows_in
    if read is not None:
        summary.add_read(read)
    summary.counts.check()
    if options.prices is not None:
        summary.cost = options.prices.cost(summary.prompt_tokens, summary.completion_tokens)
    return summary


def _open_journal(path: Path, options: RunOptions) -> Journal:
    if options.no_calls:
        return Journal.open_to_read(*options.sources, *([path] if has_calls(path) else []))
    return Journal.open(path, resume=options.resume, overwrite=options.overwrite, sources=options.sources)


class _Outcomes(Generic[R]):
    """Writes the outcomes of a run, in input order, into its files, and counts them."""

    def __init__(
        self,
        outputs: Sequence[Output],
        files: ExitStack,
        missing: MissingCalls,
        prompt_of: Callable[[R], Any],
        facts_of: Callable[[R], Counter[str]],
        *,
        overwrite: bool,
    ) -> None:
        """Open the files in `files`, which replaces them if its block ends without an error."""
        self.summary = Summary()
        self._missing, self._prompt_of, self._facts_of = missing, prompt_of, facts_of
        self._writers = [
            (output, files.enter_context(atomic_writer(output.path, overwrite=overwrite))) for output in outputs
        ]
        self._left_out = (
            files.enter_context(atomic_writer(left_out_path(outputs[0].path), overwrite=True)) if outputs else None
        )

    def add(self, outcome: Outcome[R]) -> None:
        """Write an outcome and count it."""
        record, reason, counts = outcome.record, outcome.skipped, self.summary.counts
        if reason is not None and reason.missing_calls:
            self._missing.add(counts.rows_in, reason.missing_calls)
        counts.rows_in += 1
        self.summary.facts.update(self._facts_of(record))
        if reason is None:
            counts.written += 1
        else:
            self._skip(record, reason)
        for output, writer in self._writers:
            if reason is None or output.include_skipped:
                _write_rows(writer, output.rows(record))

    def _skip(self, record: R, reason: SkipRecord) -> None:
        summary = self.summary
        summary.counts.skip(reason.reason)
        summary.faults += reason.fault
        if reason.fault and summary.first_fault is None:
            summary.first_fault = reason.detail
        if self._left_out is not None:
            row = {"id": record.id, "prompt": self._prompt_of(record)}
            _write_rows(self._left_out, [row | {"reason": reason.reason, "detail": reason.detail}])


def _write_rows(handle: BinaryIO, rows: Iterable[Row]) -> None:
    for row in rows:
        try:
            handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        except TypeError as error:
            raise CaiError(f"a record cannot be written as JSON: {error}") from error
