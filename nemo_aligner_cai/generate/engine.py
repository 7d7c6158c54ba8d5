# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Runs steps over records: many at once, in order, each call paid for once.

A step is two pure functions, ``requests(record)`` and ``absorb(record, completions)``; the engine knows nothing of
what they are about. Each block of records flows through its own chain of steps without waiting for the others. A
block is one record, unless a step's server answers whole batches with one seed (`models.base.BatchClient`): then it is
as many records as fill a batch, and what is sent together depends on the input's order alone. Either way the result
depends on the records, the steps and the run's seed, not on order, concurrency or interruptions.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.generate.journal import Call, Journal
from nemo_aligner_cai.generate.progress import Progress, Tally
from nemo_aligner_cai.generate.seeds import derive_seed
from nemo_aligner_cai.models.base import BatchClient, CallFailed, Completion, ModelClient, Request

T = TypeVar("T")

_BLOCKS_AHEAD = 4
"""Batches that are under way at once: one that the server works on, and the next ones ready at its lock."""
_RECORDS_AHEAD = 4
"""Records under way per concurrent request: enough that the last calls of a run are many and short chains."""


class HasId(Protocol):
    """A record: anything with an id that is its own within the run."""

    @property
    def id(self) -> str:
        """Names the record in seeds and in the journal."""
        ...


R = TypeVar("R", bound=HasId)


class LeaveOut(Exception):
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
    left_out: LeaveOut | None = None


class Engine:
    """See the module. One engine per run."""

    def __init__(
        self, *, seed: int, journal: Journal | None = None, window: int | None = None, progress: Progress | None = None
    ) -> None:
        """Args as follows.

        Args:
            seed: the run's seed.
            journal: where finished calls are kept and found again; None keeps nothing.
            window: records under way at once; None derives it from the clients. Memory grows with it.
            progress: told what happens.
        """
        self._seed = seed
        self._journal = journal
        self._window = window
        self._progress = progress
        self._batch_clients: dict[int, BatchClient] = {}
        self.tally = Tally()

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
        self._batch_clients = {id(step.client): step.client for step in steps if isinstance(step.client, BatchClient)}
        size = max((client.batch_size for client in self._batch_clients.values()), default=1)
        window = self._window or max(
            _BLOCKS_AHEAD * size if size > 1 else 0, _RECORDS_AHEAD * max(step.client.concurrency for step in steps)
        )
        blocks = max(1, window // size)
        source = iter(records)
        ahead: deque[asyncio.Task[list[Outcome[R]]]] = deque()
        self.tally.started = time.monotonic()
        try:
            while True:
                while len(ahead) < blocks and (block := list(islice(source, size))):
                    ahead.append(asyncio.ensure_future(self._chain(block, steps)))
                if not ahead:
                    return
                for outcome in await ahead[0]:
                    self.tally.records += 1
                    self.tally.left_out += outcome.left_out is not None
                    finished(outcome)
                ahead.popleft()
                self._report(steps)
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _chain(self, block: Sequence[R], steps: Sequence[Step[R]]) -> list[Outcome[R]]:
        """Take a block of records through all steps; the outcomes stand in the records' order."""
        outcomes = [Outcome(record) for record in block]
        for position, step in enumerate(steps):
            calls: list[Call] = []
            owners: list[int] = []
            for index, outcome in enumerate(outcomes):
                if outcome.left_out is None:
                    asked = self._calls(step, outcome.record, priority=position)
                    calls += asked
                    owners += [index] * len(asked)
            answers = await self._answers(step, calls)
            by_owner: dict[int, list[Completion | CallFailed]] = {}
            for owner, answer in zip(owners, answers, strict=True):
                by_owner.setdefault(owner, []).append(answer)
            outcomes = [
                outcome if outcome.left_out else _absorbed(step, outcome.record, by_owner.get(index, []))
                for index, outcome in enumerate(outcomes)
            ]
        return outcomes

    def _calls(self, step: Step[R], record: R, *, priority: int) -> list[Call]:
        """A record's calls. Early steps go first: so the longest chains are not left to the end of the run."""
        model = step.client.identity
        calls: list[Call] = []
        for sample, request in enumerate(step.requests(record)):
            seed = derive_seed(self._seed, record.id, step.name, sample) if request.is_random else None
            request = replace(request, priority=priority, sampling=replace(request.sampling, seed=seed))
            calls.append(Call(step.name, record.id, sample, request, model))
        return calls

    async def _answers(self, step: Step[R], calls: Sequence[Call]) -> list[Completion | CallFailed]:
        client = self._batch_clients.get(id(step.client))
        if client is None:
            return await _all([self._single(step.client, call) for call in calls])
        groups: dict[Request | tuple[Any, ...], list[int]] = {}
        for index, call in enumerate(calls):
            groups.setdefault(_alike(call.request), []).append(index)
        answers: dict[int, Completion | CallFailed] = {}
        tasks: list[Coroutine[Any, Any, None]] = []
        for indices in groups.values():
            if calls[indices[0]].request.is_random:
                waiting = indices
            else:
                # Nothing random is in these: each may be reused alone, whatever it was sent with.
                waiting = [index for index in indices if not self._reuse(calls[index].key, index, answers)]
            for chunk in _chunks(waiting, calls, client.batch_size):
                tasks.append(self._batch(client, calls, chunk, answers))
        await _all(tasks)
        return [answers[index] for index in range(len(calls))]

    async def _single(self, client: ModelClient, call: Call) -> Completion | CallFailed:
        key = call.key
        answers: dict[int, Completion | CallFailed] = {}
        if self._reuse(key, 0, answers):
            return answers[0]
        try:
            completion = await client.complete(call.request)
        except CallFailed as failure:
            self._note_failure(call, failure)
            return failure
        self._note([(key, call, completion)])
        return completion

    async def _batch(
        self,
        client: BatchClient,
        calls: Sequence[Call],
        chunk: Sequence[int],
        answers: dict[int, Completion | CallFailed],
    ) -> None:
        """Answer calls that are sent together, all from the journal or all from the server."""
        keys = [calls[index].key for index in chunk]
        name = content_hash(keys, length=32)
        seed = None
        if calls[chunk[0]].request.is_random:
            # What is sampled depends on the whole batch, so its name belongs to each key, and its seed to its name.
            keys = [content_hash([key, name], length=32) for key in keys]
            seed = derive_seed(self._seed, name)
            found: dict[int, Completion | CallFailed] = {}
            if all([self._reuse(key, index, found) for key, index in zip(keys, chunk, strict=True)]):
                answers.update(found)
                return
            self.tally.reused -= len(found)
        completions = await client.complete_batch([calls[index].request for index in chunk], seed)
        done: list[tuple[str, Call, Completion]] = []
        for key, index, completion in zip(keys, chunk, completions, strict=True):
            answers[index] = completion
            if isinstance(completion, CallFailed):
                self._note_failure(calls[index], completion)
            else:
                done.append((key, calls[index], completion))
        self._note(done, batch=name)

    def _reuse(self, key: str, index: int, answers: dict[int, Completion | CallFailed]) -> bool:
        completion = self._journal.lookup(key) if self._journal is not None else None
        if completion is None:
            return False
        self.tally.reused += 1
        answers[index] = completion
        return True

    def _note(self, done: Sequence[tuple[str, Call, Completion]], *, batch: str | None = None) -> None:
        self.tally.calls += len(done)
        if self._journal is not None and done:
            self._journal.append(done, batch=batch)

    def _note_failure(self, call: Call, failure: CallFailed) -> None:
        self.tally.failed += 1
        if self._journal is not None:
            self._journal.append_failure(call, failure)

    def _report(self, steps: Sequence[Step[R]]) -> None:
        if self._progress is not None:
            clients: Mapping[int, ModelClient] = {id(step.client): step.client for step in steps}
            self._progress.update(self.tally, [client.stats for client in clients.values()])


def _absorbed(step: Step[R], record: R, answers: Sequence[Completion | CallFailed]) -> Outcome[R]:
    completions: list[Completion] = []
    for answer in answers:
        if isinstance(answer, CallFailed):
            return Outcome(record, LeaveOut(f"{step.name} call failed: {answer.reason}", str(answer), fault=True))
        completions.append(answer)
    try:
        return Outcome(step.absorb(record, completions))
    except LeaveOut as left_out:
        return Outcome(record if left_out.record is None else left_out.record, left_out)


def _alike(request: Request) -> tuple[Any, ...]:
    """Requests with equal values here may stand in one batch."""
    return (bool(request.choices), replace(request.sampling, seed=None))


def _chunks(indices: Sequence[int], calls: Sequence[Call], size: int) -> Iterable[list[int]]:
    """Cut into batches of at most `size` sentences, in order; a request has one, or one for each choice."""
    chunk: list[int] = []
    weight = 0
    for index in indices:
        sentences = max(1, len(calls[index].request.choices))
        if chunk and weight + sentences > size:
            yield chunk
            chunk, weight = [], 0
        chunk.append(index)
        weight += sentences
    if chunk:
        yield chunk


async def _all(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Like gather, but nothing is left running when one of them fails."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
