# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the steps of a generation stage and writes its rows in input order, with complete row counts."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar

import orjson

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.console.progress import open_progress
from nemo_aligner_cai.engine.engine import Engine, HasId, Outcome, SkipRecord, Step, block_size
from nemo_aligner_cai.engine.journal import Journal, has_content
from nemo_aligner_cai.engine.progress import ProgressReporter
from nemo_aligner_cai.engine.rehearsal import REHEARSED, RowLimit, rehearse
from nemo_aligner_cai.engine.run_settings import RunSettings
from nemo_aligner_cai.engine.served_models import run_checked
from nemo_aligner_cai.engine.shards import MissingCallCounter
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, Row, RowCounts, atomic_writer

REMOVED_REASONING = "replies with thoughts, which were cut"
"""Name of their count in `Summary.facts`."""


class HasConversation(Protocol):
    """A prompt."""

    @property
    def conversation(self) -> Conversation:
        """Its messages."""
        ...


class PromptRecord(HasId, Protocol):
    """A prompt on its way through the steps."""

    @property
    def prompt(self) -> HasConversation:
        """The prompt, for the list of dropped prompts."""
        ...

    @property
    def counts(self) -> Counter[str]:
        """The record's contribution to the summary's facts, also if it is dropped."""
        ...


R = TypeVar("R", bound=PromptRecord)


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
    journal_path: Path,
    run: RunSettings,
    total: int | None = None,
    read: RowCounts | None = None,
    limits: Sequence[RowLimit[R]] = (),
) -> Summary:
    """Run steps over records and write the rows.

    Args:
        title: title of the progress display.
        records: read lazily.
        steps: the chain.
        outputs: files to write. The list of dropped prompts is named after the first one.
        journal_path: the journal that the run writes.
        run: the run's settings. A shard writes no outputs.
        total: number of records, for the progress display, if known.
        read: row counts of reading the prompts, complete once all are read; they are added to the summary's.
        limits: the sequence lengths of the trainers that get the rows, for the rehearsal.

    Returns:
        The summary. Call `Summary.check` after saving everything that depends on it.

    Raises:
        UsageError: an output or the journal exists and may not be replaced, or the rehearsal of the first records
            shows that none can succeed (`rehearsal.rehearse`). No request was sent.
        CallsMissing: a call is in no journal, and the run has no server. Nothing was written.
        ServerRefused: a server rejects every request.
        CaiError: writing failed.
    """
    clients = list({id(step.client): step.client for step in steps}.values())
    started, before = time.monotonic(), [replace(client.stats) for client in clients]
    block, others = block_size(clients), run.other_journals(journal_path)
    if run.shard is not None:
        outputs, records = (), run.shard.select(records, block)
        total = total and run.shard.size(total, block)
    missing = MissingCallCounter((*others, journal_path), block)
    if not run.no_calls:
        records = iter(records)
        first = list(islice(records, REHEARSED))
        await rehearse(first, steps, limits)
        records = chain(first, records)
    with ExitStack() as files:
        outcomes = _Outcomes[R](outputs, files, missing, overwrite=run.replaces)
        journal = _open_journal(journal_path, others, run)
        progress = None
        if run.progress:
            display = open_progress(title, "record", total)
            progress = ProgressReporter(display, [client.stats for client in clients], total, run.prices)
        engine = Engine(seed=run.seed, journal=journal, progress=progress, no_calls=run.no_calls)
        try:
            work = engine.run(records, steps, outcomes.add)
            await (run_checked(work, journal, clients) if run.ask_for_models and not run.no_calls else work)
        finally:
            if progress is not None:
                progress.update(engine.stats)
                progress.display.close()
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
    if run.shard is not None:
        summary.in_shard = summary.counts.rows_in
    if read is not None:
        summary.add_read(read)
    summary.counts.check()
    if run.prices is not None:
        summary.cost = run.prices.cost(summary.prompt_tokens, summary.completion_tokens)
    return summary


def _open_journal(path: Path, others: Sequence[Path], run: RunSettings) -> Journal:
    if run.no_calls:
        # Of equal calls, the last journal's counts: those of the shards are newer than an earlier run's of the whole.
        return Journal.open_to_read(*([path] if has_content(path) else []), *others)
    return Journal.open(path, resume=run.resume, overwrite=run.overwrite, sources=others)


class _Outcomes(Generic[R]):
    """Writes the outcomes of a run, in input order, into its files, and counts them."""

    def __init__(
        self, outputs: Sequence[Output], files: ExitStack, missing: MissingCallCounter, *, overwrite: bool
    ) -> None:
        """Open the files in `files`, which replaces them if its block ends without an error."""
        self.summary = Summary()
        self._missing = missing
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
        self.summary.facts.update(record.counts)
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
            row = {"id": record.id, "prompt": record.prompt.conversation.to_messages()}
            _write_rows(self._left_out, [row | {"reason": reason.reason, "detail": reason.detail}])


def _write_rows(handle: BinaryIO, rows: Iterable[Row]) -> None:
    for row in rows:
        try:
            handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        except TypeError as error:
            raise CaiError(f"a record cannot be written as JSON: {error}") from error
