# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Executes calls: completions come from the journal or from a server.

A server that processes whole batches with one seed (`models.base.BatchClient`) gets full batches of prompts of similar
length: NeMo's server runs a batch from the end of its shortest prompt to the end of its longest reply.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from nemo_aligner_cai.engine.journal import Journal
from nemo_aligner_cai.engine.journal_entries import Call
from nemo_aligner_cai.engine.progress import RunStats
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.models.base import BatchClient, CallFailed, Completion, ModelClient

_log = logging.getLogger(__name__)
T = TypeVar("T")
Answer = Completion | CallFailed


class NotInJournal(CallFailed):
    """The call is in no journal, and the run has no server."""

    def __init__(self) -> None:
        super().__init__("in no journal")


class RequestExecutor:
    """Executes the calls of one run."""

    def __init__(
        self,
        clients: Iterable[ModelClient],
        *,
        seed: int,
        journal: Journal | None,
        stats: RunStats,
        no_calls: bool = False,
    ) -> None:
        """Create an executor.

        Args:
            clients: all clients of the run.
            seed: the run's seed, from which the batches' seeds are derived.
            journal: stores the completions; None stores nothing.
            stats: counts the calls.
            no_calls: contact no server: answers are those of the journal, its failures, or NotInJournal.
        """
        self._seed = seed
        self._no_calls = no_calls
        self._journal = journal
        self._stats = stats
        self._logged: set[tuple[str, str]] = set()
        self._batch_clients = {id(client): client for client in clients if isinstance(client, BatchClient)}

    async def execute(self, client: ModelClient, calls: Sequence[Call]) -> list[Answer]:
        """Execute the calls of one block of records; answers are in their order.

        Raises:
            ServerRefused: the server would reject every request.
        """
        batch_client = self._batch_clients.get(id(client))
        if batch_client is not None:
            return await self._execute_batches(batch_client, calls)
        return await _gather([self._execute_one(client, call) for call in calls])

    async def _execute_one(self, client: ModelClient, call: Call) -> Answer:
        key = call.key
        stored = self._reuse(call, key)
        if stored is not None:
            return stored
        try:
            if self._no_calls:
                raise self._recorded_failure(key)
            completion = await client.complete(call.request)
        except CallFailed as failure:
            self._record_failure(key, call, failure)
            return failure.with_traceback(None)
        self._record([(key, call, completion)])
        return completion

    async def _execute_batches(self, client: BatchClient, calls: Sequence[Call]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, call in enumerate(calls):
            # Without randomness, a completion does not depend on its batch.
            stored = None if call.request.is_random else self._reuse(call, call.key)
            if stored is not None:
                answers[index] = stored
            else:
                # The requests of a batch share their sampling parameters.
                parameters = bool(call.request.choices), replace(call.request.sampling, seed=None)
                groups.setdefault(parameters, []).append(index)
        tasks: list[Coroutine[Any, Any, None]] = []
        for indices in groups.values():
            indices.sort(key=lambda index: sum(len(m.content) for m in calls[index].request.conversation.messages))
            tasks += [
                self._execute_batch(client, calls, batch, answers)
                for batch in _batches(indices, calls, client.batch_size)
            ]
        await _gather(tasks)
        return [answers[index] for index in range(len(calls))]

    async def _execute_batch(
        self, client: BatchClient, calls: Sequence[Call], indices: Sequence[int], answers: dict[int, Answer]
    ) -> None:
        """Execute one batch; if it is random, all of its completions come from the journal or all from the server."""
        keys = [calls[index].key for index in indices]
        name = content_hash(keys, length=32)
        seed = None
        if calls[indices[0]].request.is_random:
            # Samples depend on the whole batch, so the keys and the seed are derived from the batch's name.
            keys = [content_hash([key, name], length=32) for key in keys]
            seed = derive_seed(self._seed, name)
            found = [self._lookup(calls[index], key) for index, key in zip(indices, keys, strict=True)]
            stored = [completion for completion in found if completion is not None]
            if len(stored) == len(keys):
                for index, completion in zip(indices, stored, strict=True):
                    answers[index] = completion
                    self._stats.reused[calls[index].step] += 1
                return
        if self._no_calls:
            self._answer_from_journal(calls, indices, keys, answers)
            return
        completions = await client.complete_batch([calls[index].request for index in indices], seed)
        done: list[tuple[str, Call, Completion]] = []
        for key, index, completion in zip(keys, indices, completions, strict=True):
            answers[index] = completion
            if isinstance(completion, CallFailed):
                self._record_failure(key, calls[index], completion)
            else:
                done.append((key, calls[index], completion))
        self._record(done, batch=name)

    def _answer_from_journal(
        self, calls: Sequence[Call], indices: Sequence[int], keys: Sequence[str], answers: dict[int, Answer]
    ) -> None:
        """Answer a batch without a server; all of it is missing if one call is, since it is one request."""
        found = [
            self._lookup(calls[index], key) or self._recorded_failure(key)
            for index, key in zip(indices, keys, strict=True)
        ]
        is_whole = not any(isinstance(answer, NotInJournal) for answer in found)
        for key, index, answer in zip(keys, indices, found, strict=True):
            answers[index] = answer if is_whole else NotInJournal()
            if isinstance(answer, CallFailed):
                self._record_failure(key, calls[index], answer)
            else:
                self._stats.reused[calls[index].step] += 1

    def _recorded_failure(self, key: str) -> CallFailed:
        return (self._journal.failure(key) if self._journal is not None else None) or NotInJournal()

    def _lookup(self, call: Call, key: str) -> Completion | None:
        return self._journal.lookup(key, room=call.request.room) if self._journal is not None else None

    def _reuse(self, call: Call, key: str) -> Completion | None:
        completion = self._lookup(call, key)
        if completion is not None:
            self._stats.reused[call.step] += 1
        return completion

    def _record(self, done: Sequence[tuple[str, Call, Completion]], *, batch: str | None = None) -> None:
        for _, call, _ in done:
            self._stats.calls[call.step] += 1
        if self._journal is not None and done:
            self._journal.append(done, batch=batch)

    def _record_failure(self, key: str, call: Call, failure: CallFailed) -> None:
        if isinstance(failure, NotInJournal):
            return
        self._stats.failed += 1
        if (call.step, failure.reason) not in self._logged:
            self._logged.add((call.step, failure.reason))
            _log.warning("%s: call failed for %s: %s (logged once per reason)", call.step, call.record, failure)
        if self._journal is not None:
            self._journal.append_failure(key, call, failure)


def _batches(indices: Sequence[int], calls: Sequence[Call], size: int) -> Iterator[list[int]]:
    """Yield batches of at most `size` sentences, in order. A request has one sentence, or one per choice."""
    batch: list[int] = []
    used = 0
    for index in indices:
        sentences = max(1, len(calls[index].request.choices))
        if batch and used + sentences > size:
            yield batch
            batch, used = [], 0
        batch.append(index)
        used += sentences
    if batch:
        yield batch


async def _gather(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Like `asyncio.gather`, but if one coroutine fails, the others are cancelled."""
    if len(coroutines) == 1:
        return [await coroutines[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
