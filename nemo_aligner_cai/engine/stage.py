# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What both generation stages have in common: prompts in, steps, rows out in input order, a balance that adds up."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import orjson

from nemo_aligner_cai.engine.engine import Engine, HasId, Outcome, Step
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.progress import Prices, ProgressReporter, show_progress
from nemo_aligner_cai.engine.resuming import require_journal
from nemo_aligner_cai.engine.served_models import check_served
from nemo_aligner_cai.engine.summary import Summary
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.files import PathLike, RowCounts, atomic_writer
from nemo_aligner_cai.files.output_paths import check_output

R = TypeVar("R", bound=HasId)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunOptions:
    """How a stage is run; only `seed` has an influence on what it writes.

    Attributes:
        seed: all that is drawn depends on it.
        resume: go on with the journal that is there, and replace outputs that are there.
        overwrite: start anew, and replace what is there.
        max_dropped: the share of records that may be left out by faults, for `Summary.check`.
        window: records under way at once; None derives it from the clients.
        progress: show a bar or log lines.
        total: the number of prompts, for the bar, where it is known.
        prices: what tokens cost, for the bar and the summary, where it is known.
        ask_for_models: compare the model that a server says it has with the one that gave the journal's replies; not
            for a server that the caller starts itself, and whose model is named by what it was made of.
    """

    seed: int = 1234
    resume: bool = False
    overwrite: bool = False
    max_dropped: float = 0.01
    window: int | None = None
    progress: bool = True
    total: int | None = None
    prices: Prices | None = None
    ask_for_models: bool = True


@dataclass(frozen=True)
class Output:
    """A file of JSON lines: `rows` makes some of a finished record, `left_out` of one that is left out."""

    path: Path
    rows: Callable[[Any], Iterable[Row]]
    left_out: Callable[[Any], Iterable[Row]] = lambda record: ()


def left_out_path(path: PathLike) -> Path:
    """Where the prompts that did not make it into `path` are listed, with the reason."""
    return companion(path, "left_out.jsonl")


def companion(path: PathLike, ending: str) -> Path:
    """A file that belongs to another one, told by its name: rows.jsonl -> rows.left_out.jsonl, and no other's."""
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
    facts_of: Callable[[R], Counter[str]] = lambda record: Counter(),
) -> Summary:
    """Run steps over records and write what comes out.

    Args:
        title: for the progress view.
        records: read lazily.
        steps: the chain.
        outputs: files to write; the first one's name is also that of the list of left-out prompts.
        journal_path: the journal.
        options: see there.
        read: the counts of reading the prompts, complete once all are read; its left-out rows join the summary's.
        prompt_of: a record's prompt as JSON holds it, for the list of left-out prompts.
        facts_of: a record's contribution to the summary's facts; asked of left-out records too.

    Returns:
        What was done; `Summary.check` says whether it is enough, once all that depends on it is saved too.

    Raises:
        UsageError: an output or the journal is there already and may not be replaced; nothing was asked then.
        ServerRefused: a server refuses every request.
        CaiError: writing failed.
    """
    replace = options.overwrite or options.resume
    for output in outputs:
        check_output(output.path, overwrite=replace)
    if options.resume:
        require_journal(Path(journal_path), [output.path for output in outputs])
    journal = Journal.open(journal_path, resume=options.resume, overwrite=options.overwrite)
    clients = {id(step.client): step.client for step in steps}.values()
    meter = ProgressReporter([client.stats for client in clients], options.total, options.prices)
    progress = show_progress(title, meter) if options.progress else None
    engine = Engine(seed=options.seed, journal=journal, window=options.window, progress=progress)
    summary = Summary()
    started = time.monotonic()
    before = [(client.stats.retries, client.stats.prompt_tokens, client.stats.completion_tokens) for client in clients]
    try:
        with ExitStack() as files:
            writers = [files.enter_context(atomic_writer(output.path, overwrite=replace)) for output in outputs]
            rejects = files.enter_context(atomic_writer(left_out_path(outputs[0].path), overwrite=True))

            def finished(outcome: Outcome[R]) -> None:
                summary.counts.rows_in += 1
                summary.facts.update(facts_of(outcome.record))
                if outcome.left_out is not None:
                    why = outcome.left_out
                    summary.counts.skip(why.reason)
                    summary.faults += why.fault
                    if why.fault and summary.first_fault is None:
                        summary.first_fault = why.detail
                    prompt = prompt_of(outcome.record)
                    row = {"id": outcome.record.id, "prompt": prompt, "reason": why.reason, "detail": why.detail}
                    _write(rejects, [row])
                else:
                    summary.counts.written += 1
                for output, writer in zip(outputs, writers, strict=True):
                    _write(writer, (output.left_out if outcome.left_out else output.rows)(outcome.record))

            if options.ask_for_models:
                await check_served(journal, clients, say=True)
            await engine.run(records, steps, finished)
            if options.ask_for_models:
                # A server may not have been there at the beginning, or have been replaced since.
                await check_served(journal, clients, say=False)
    finally:
        if progress is not None:
            progress.close(engine.tally)
        await journal.close()
    summary.seconds = time.monotonic() - started
    tally = engine.tally
    summary.calls, summary.reused, summary.failed = tally.calls.total(), tally.reused.total(), tally.failed
    summary.facts.update(tally.thoughts)
    for client, (retries, prompt_tokens, completion_tokens) in zip(clients, before, strict=True):
        summary.retries += client.stats.retries - retries
        summary.prompt_tokens += client.stats.prompt_tokens - prompt_tokens
        summary.completion_tokens += client.stats.completion_tokens - completion_tokens
    if read is not None:
        _join(summary.counts, read)
    summary.counts.check()
    if options.prices is not None:
        summary.cost = options.prices.cost(summary.prompt_tokens, summary.completion_tokens)
    return summary


def _join(counts: RowCounts, read: RowCounts) -> None:
    """Put the rows that reading left out in front: rows of the file in, records out."""
    counts.rows_in = read.rows_in
    counts.skipped.update(read.skipped)
    counts.noted.update(read.noted)


def _write(handle: BinaryIO, rows: Iterable[Row]) -> None:
    for row in rows:
        try:
            handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        except TypeError as error:
            raise CaiError(f"a record cannot be written as JSON: {error}") from error
