# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs steps over records: many at once, in order, each call paid for once.

A step is two pure functions, ``requests(record)`` and ``absorb(record, completions)``; the engine knows nothing of
what they are about. Each block of records flows through its own chain of steps without waiting for the others. A
block is one record, unless a step's server answers whole batches with one seed (`models.base.BatchClient`): then it is
as many records as fill a few batches, and what is sent together depends on the input's order alone. Either way the
result depends on the records, the steps and the run's seed, not on order, concurrency or interruptions.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from nemo_aligner_cai.engine.executor import Answer, RequestExecutor
from nemo_aligner_cai.engine.journal import Call, Journal
from nemo_aligner_cai.engine.progress import Progress, RunStats
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.models.base import BatchClient, CallFailed, Completion, ModelClient, Request
from nemo_aligner_cai.models.thinking import ADVICE, strip_reasoning

_log = logging.getLogger(__name__)
THOUGHTS = "replies with thoughts, which were cut"
"""Name of their count."""
_BATCHES = 4
"""Batches in a block: out of so many, batches of prompts of like length can be made."""
_BLOCKS_AHEAD = 3
"""Blocks under way at once: while one waits for its last batch, the others have batches for the server."""
_RECORDS_AHEAD = 4
"""Records under way per concurrent request: enough that the last calls of a run are many and short chains."""
_SHOWN_EVERY = 0.25
"""Seconds between two looks at the progress."""


class HasId(Protocol):
    """A record: anything with an id that is its own within the run."""

    @property
    def id(self) -> str:
        """Names the record in seeds and in the journal."""
        ...


R = TypeVar("R", bound=HasId)


class SkipRecord(Exception):
    """Raised by a step's `absorb`: the record ends here.

    `reason` is a short phrase that is counted. `fault` says that something went wrong that another run might mend (it
    counts against ``--max-dropped``); a tie or a duplicate is no fault. `record` is the record as far as it came,
    where the step has something to add to it.
    """

    def __init__(self, reason: str, detail: str = "", *, fault: bool = False, record: Any = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.fault, self.record = reason, detail, fault, record


@dataclass(frozen=True)
class Step(Generic[R]):
    """One stage of a chain.

    Attributes:
        name: names the step in seeds and in the journal.
        client: who answers.
        requests: the record's requests, their seeds not filled in; none means that nothing is asked.
        absorb: the record with the completions, which come in the order of the requests; may raise LeaveOut.
    """

    name: str
    client: ModelClient
    requests: Callable[[R], Sequence[Request]]
    absorb: Callable[[R, Sequence[Completion]], R]


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """A record that has passed all steps, or as far as it came before it was left out."""

    record: R
    left_out: SkipRecord | None = None


class Engine:
    """See the module. One engine per run."""

    def __init__(
        self, *, seed: int, journal: Journal | None = None, window: int | None = None, progress: Progress | None = None
    ) -> None:
        """Nothing is asked yet.

        Args:
            seed: the run's seed.
            journal: where finished calls are kept and found again; None keeps nothing.
            window: records under way at once; None derives it from the clients. Memory grows with it.
            progress: shown what has happened, a few times a second.
        """
        self._seed = seed
        self._journal = journal
        self._window = window
        self._progress = progress
        self._all_read = False
        self.tally = RunStats()

    async def run(
        self, records: Iterable[R], steps: Sequence[Step[R]], finished: Callable[[Outcome[R]], None]
    ) -> None:
        """Take every record through the steps.

        Args:
            records: read lazily, as the window moves on.
            steps: in order.
            finished: called with each record in input order.

        Raises:
            ServerRefused: a server would refuse every request; what is finished is in the journal.
            CaiError: reading a record or writing an outcome failed.
        """
        clients = [step.client for step in steps]
        answers = RequestExecutor(clients, seed=self._seed, journal=self._journal, tally=self.tally)
        size, blocks = self._extent(clients)
        source = iter(records)
        ahead: deque[asyncio.Task[list[Outcome[R]]]] = deque()
        self.tally.started, self.tally.steps = time.monotonic(), len(steps)
        showing = asyncio.ensure_future(self._show())
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            while True:
                while len(ahead) < blocks and (block := list(islice(source, size))):
                    task = asyncio.ensure_future(self._chain(block, steps, answers))
                    task.add_done_callback(lambda task: _pass_on(task, failed))
                    ahead.append(task)
                self._all_read = len(ahead) < blocks
                if not ahead:
                    return
                # What ends the run ends it now, and not when all records before it are through.
                await asyncio.wait((ahead[0], failed), return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
                for outcome in ahead[0].result():
                    self.tally.records += 1
                    self.tally.left_out += outcome.left_out is not None
                    finished(outcome)
                ahead.popleft()
        finally:
            for task in (showing, failed, *ahead):
                task.cancel()
            await asyncio.gather(showing, *ahead, return_exceptions=True)

    def _extent(self, clients: Sequence[ModelClient]) -> tuple[int, int]:
        """The records of a block, and how many blocks are under way at once."""
        batch = max((client.batch_size for client in clients if isinstance(client, BatchClient)), default=0)
        size = _BATCHES * batch or 1
        window = self._window or max(
            _BLOCKS_AHEAD * _BATCHES * batch, _RECORDS_AHEAD * max(client.concurrency for client in clients)
        )
        return size, max(1, window // size)

    async def _show(self) -> None:
        while self._progress is not None:
            self._progress.update(self.tally)
            await asyncio.sleep(_SHOWN_EVERY)

    async def _chain(self, block: Sequence[R], steps: Sequence[Step[R]], answers: RequestExecutor) -> list[Outcome[R]]:
        """Take a block of records through all steps; the outcomes stand in the records' order."""
        outcomes = [Outcome(record) for record in block]
        for position, step in enumerate(steps):
            # What has begun is finished first, while servers still have it in their prefix caches; but once all
            # records are under way, early steps go first, so that no long chain is left to the end.
            priority = position if self._all_read else -position
            asked = {
                index: self._calls(step, outcome.record, priority)
                for index, outcome in enumerate(outcomes)
                if outcome.left_out is None
            }
            given = iter(await answers.to(step.client, [call for calls in asked.values() for call in calls]))
            for index, calls in asked.items():
                answered = [self._without_thoughts(answer) for answer in islice(given, len(calls))]
                outcomes[index] = _absorbed(step, outcomes[index].record, answered)
            self.tally.passed += len(block)
        return outcomes

    def _without_thoughts(self, answer: Answer) -> Answer:
        """The answer without what a reasoning model thinks first; the journal keeps everything."""
        if isinstance(answer, CallFailed):
            return answer
        text = strip_reasoning(answer.text)
        if text == answer.text:
            return answer
        if not self.tally.thoughts:
            _log.warning("%s", ADVICE)
        self.tally.thoughts[THOUGHTS] += 1
        if text is None:
            return CallFailed("the reply ends within its thoughts", answer.text[:200])
        return replace(answer, text=text) if text else CallFailed("the reply is thoughts alone", answer.text[:200])

    def _calls(self, step: Step[R], record: R, priority: int) -> list[Call]:
        model = step.client.identity
        calls: list[Call] = []
        for sample, request in enumerate(step.requests(record)):
            seed = derive_seed(self._seed, record.id, step.name, sample) if request.is_random else None
            calls.append(Call(step.name, record.id, sample, request.scheduled(seed=seed, priority=priority), model))
        return calls


def _pass_on(task: "asyncio.Task[Any]", failed: "asyncio.Future[None]") -> None:
    """Let a task's error be known at once."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not failed.done():
        failed.set_exception(error)


def _absorbed(step: Step[R], record: R, answers: Sequence[Answer]) -> Outcome[R]:
    completions: list[Completion] = []
    for answer in answers:
        if isinstance(answer, CallFailed):
            return Outcome(record, SkipRecord(f"{step.name} call failed: {answer.reason}", str(answer), fault=True))
        completions.append(answer)
    try:
        return Outcome(step.absorb(record, completions))
    except SkipRecord as left_out:
        return Outcome(record if left_out.record is None else left_out.record, left_out)
