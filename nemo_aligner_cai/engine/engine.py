# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs records through steps, many at once, and sends each call only once.

A step is two pure functions, ``requests(record)`` and ``absorb(record, completions)``; the engine does not know their
task. Blocks of records pass through the steps independently of each other. A block is one record, unless a step's
server processes whole batches with one seed (`models.base.BatchClient`): then a block fills a few batches, and the
composition of a batch depends only on the input order. In both cases the result depends on the records, the steps and
the run's seed, not on order, concurrency or interruptions.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from nemo_aligner_cai.engine.executor import Answer, NotInJournal, RequestExecutor
from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.engine.progress import ProgressReporter, RunStats
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.models.base import BatchClient, CallFailed, Completion, ModelClient, Request
from nemo_aligner_cai.models.thinking import ADVICE, strip_reasoning

_log = logging.getLogger(__name__)
_BATCHES = 4
"""Batches in a block: enough to build batches of prompts of similar length."""
_BLOCKS_AHEAD = 3
"""Concurrent blocks: while one waits for its last batch, the others have batches for the server."""
_RECORDS_AHEAD = 4
"""Concurrent records per concurrent request, so that a run ends with many short chains instead of a few long ones."""
_PROGRESS_SECONDS = 0.25


class HasId(Protocol):
    """A record with an id that is unique within the run. Seeds and journal entries contain it."""

    @property
    def id(self) -> str:
        """The record's id."""
        ...


R = TypeVar("R", bound=HasId)


class SkipRecord(Exception):
    """Raised by a step's `absorb` to drop a record.

    Attributes:
        reason: short phrase under which the record is counted.
        detail: further information, such as the model's reply.
        fault: True for errors that another run may not have; they count against ``--max-dropped``. A tie or a
            duplicate is not a fault.
        record: the record including the step's additions, if any.
        missing_calls: in a run without a server, the calls of the step that are in no journal.
    """

    def __init__(
        self, reason: str, detail: str = "", *, fault: bool = False, record: Any = None, missing_calls: int = 0
    ) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.fault, self.record = reason, detail, fault, record
        self.missing_calls = missing_calls


@dataclass(frozen=True)
class Step(Generic[R]):
    """One step of a chain.

    Attributes:
        name: name of the step in seeds and in the journal.
        client: the model.
        requests: returns a record's requests without seeds, possibly none.
        absorb: returns the record with the completions, which are in the order of the requests; may raise SkipRecord.
    """

    name: str
    client: ModelClient
    requests: Callable[[R], Sequence[Request]]
    absorb: Callable[[R, Sequence[Completion]], R]


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """A record that has passed all steps, or as it was when it was dropped."""

    record: R
    skipped: SkipRecord | None = None


class Engine:
    """Runs records through steps. Use one engine per run."""

    def __init__(
        self,
        *,
        seed: int,
        journal: Journal | None = None,
        progress: ProgressReporter | None = None,
        no_calls: bool = False,
    ) -> None:
        """Create an engine.

        Args:
            seed: the run's seed.
            journal: stores finished calls, which are then reused.
            progress: updated a few times a second.
            no_calls: contact no server; a record that needs a call that the journal does not have is dropped.
        """
        self._seed = seed
        self._no_calls = no_calls
        self._journal = journal
        self._progress = progress
        self._all_read = False
        self.stats = RunStats()

    async def run(
        self, records: Iterable[R], steps: Sequence[Step[R]], on_outcome: Callable[[Outcome[R]], None]
    ) -> None:
        """Run every record through the steps.

        Records are read lazily; `on_outcome` gets the outcomes in input order.

        Raises:
            ServerRefused: a server would reject every request. Finished calls are in the journal.
            CaiError: reading a record or writing an outcome failed.
        """
        clients = [step.client for step in steps]
        executor = RequestExecutor(
            clients, seed=self._seed, journal=self._journal, stats=self.stats, no_calls=self._no_calls
        )
        size = block_size(clients)
        source = iter(records)
        blocks: deque[asyncio.Task[list[Outcome[R]]]] = deque()
        self.stats.started, self.stats.steps = time.monotonic(), len(steps)
        progress = asyncio.ensure_future(self._update_progress())
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            while True:
                # Servers may have joined or left.
                max_blocks = _max_records(clients) // size
                while len(blocks) < max_blocks and (block := list(islice(source, size))):
                    task = asyncio.ensure_future(self._run_block(block, steps, executor))
                    task.add_done_callback(lambda task: _forward_error(task, failed))
                    blocks.append(task)
                self._all_read = len(blocks) < max_blocks
                if not blocks:
                    return
                # An error in any block ends the run at once, not after all blocks before it.
                await asyncio.wait((blocks[0], failed), return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
                for outcome in blocks[0].result():
                    self.stats.records += 1
                    self.stats.skipped += outcome.skipped is not None
                    on_outcome(outcome)
                blocks.popleft()
        finally:
            for task in (progress, failed, *blocks):
                task.cancel()
            await asyncio.gather(progress, *blocks, return_exceptions=True)

    async def _update_progress(self) -> None:
        while self._progress is not None:
            self._progress.update(self.stats)
            await asyncio.sleep(_PROGRESS_SECONDS)

    async def _run_block(
        self, block: Sequence[R], steps: Sequence[Step[R]], executor: RequestExecutor
    ) -> list[Outcome[R]]:
        outcomes = [Outcome(record) for record in block]
        for position, step in enumerate(steps):
            # Later steps go first, while servers have their prompts in the prefix cache. Once all records are under
            # way, earlier steps go first, so that no long chain remains at the end.
            priority = position if self._all_read else -position
            calls = {
                index: self._calls(step, outcome.record, priority)
                for index, outcome in enumerate(outcomes)
                if outcome.skipped is None
            }
            answers = iter(await executor.execute(step.client, [call for group in calls.values() for call in group]))
            for index, group in calls.items():
                own = [self._strip_reasoning(answer) for answer in islice(answers, len(group))]
                outcomes[index] = _absorb(step, outcomes[index].record, own)
            self.stats.steps_done += len(block)
        return outcomes

    def _strip_reasoning(self, answer: Answer) -> Answer:
        """Return the answer without the model's reasoning, which only the journal keeps."""
        if isinstance(answer, CallFailed):
            return answer
        text = strip_reasoning(answer.text)
        if text == answer.text:
            return answer
        if not self.stats.with_reasoning:
            _log.warning("%s", ADVICE)
        self.stats.with_reasoning += 1
        if text is None:
            return CallFailed("the reply ends within its thoughts", answer.text[:200])
        return replace(answer, text=text) if text else CallFailed("the reply is thoughts alone", answer.text[:200])

    def _calls(self, step: Step[R], record: R, priority: int) -> list[Call]:
        calls: list[Call] = []
        for sample, request in enumerate(step.requests(record)):
            seed = derive_seed(self._seed, record.id, step.name, sample) if request.is_random else None
            scheduled = request.scheduled(seed=seed, priority=priority)
            calls.append(Call(step.name, record.id, sample, scheduled, step.client.identity))
        return calls


async def run_all(records: Iterable[R], step: Step[R], *, seed: int, journal: Path) -> list[R]:
    """Run records through one step, and return them in input order. An existing journal is resumed.

    Raises:
        CaiError: a record was dropped; with the first one's reason. Finished calls are in the journal.
    """
    done: list[R] = []
    dropped: list[SkipRecord] = []

    def keep(outcome: Outcome[R]) -> None:
        if outcome.skipped is None:
            done.append(outcome.record)
        else:
            dropped.append(outcome.skipped)

    opened = Journal.open(journal, resume=True)
    try:
        await Engine(seed=seed, journal=opened).run(records, [step], keep)
    finally:
        await opened.close()
    if dropped:
        all_records = len(done) + len(dropped)
        raise CaiError(f"{journal}: {len(dropped)} of {all_records} records were dropped, the first one: {dropped[0]}")
    return done


def block_size(clients: Iterable[ModelClient]) -> int:
    """Return the number of records in a block: 1, or enough to fill a few batches."""
    return _BATCHES * _batch_size(clients) or 1


def _max_records(clients: Sequence[ModelClient]) -> int:
    """Return the maximum number of concurrent records."""
    most = max(client.concurrency for client in clients)
    return max(_BLOCKS_AHEAD * _BATCHES * _batch_size(clients), _RECORDS_AHEAD * most)


def _batch_size(clients: Iterable[ModelClient]) -> int:
    return max((client.batch_size for client in clients if isinstance(client, BatchClient)), default=0)


def _forward_error(task: "asyncio.Task[Any]", failed: "asyncio.Future[None]") -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not failed.done():
        failed.set_exception(error)


def _absorb(step: Step[R], record: R, answers: Sequence[Answer]) -> Outcome[R]:
    completions: list[Completion] = []
    for answer in answers:
        if isinstance(answer, CallFailed):
            missing = isinstance(answer, NotInJournal) and sum(isinstance(other, NotInJournal) for other in answers)
            reason = f"{step.name} call failed: {answer.reason}"
            return Outcome(record, SkipRecord(reason, str(answer), fault=True, missing_calls=missing))
        completions.append(answer)
    try:
        return Outcome(step.absorb(record, completions))
    except SkipRecord as skipped:
        # Without the traceback, whose frames keep the record and its replies.
        return Outcome(record if skipped.record is None else skipped.record, skipped.with_traceback(None))
