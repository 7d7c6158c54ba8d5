# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Answers to calls, from the journal or from a server: each is paid for once.

A server that answers whole batches with one seed (`models.base.BatchClient`) is sent full batches of prompts of like
length: NeMo's server runs a batch from the end of its shortest prompt to the end of its longest reply.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from nemo_aligner_cai.engine.journal import Call, Journal
from nemo_aligner_cai.engine.progress import RunStats
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.files import content_hash
from nemo_aligner_cai.models.base import BatchClient, CallFailed, Completion, ModelClient, Request

_log = logging.getLogger(__name__)
T = TypeVar("T")
Answer = Completion | CallFailed


class RequestExecutor:
    """The answers of one run."""

    def __init__(self, clients: Iterable[ModelClient], *, seed: int, journal: Journal | None, tally: RunStats) -> None:
        """Nothing is asked yet.

        Args:
            clients: all that will be asked.
            seed: the run's, for the batches' seeds.
            journal: where answers are found and kept; None keeps nothing.
            tally: counts calls.
        """
        self._seed = seed
        self._journal = journal
        self._tally = tally
        self._told: set[tuple[str, str]] = set()
        self._batch_clients = {id(client): client for client in clients if isinstance(client, BatchClient)}

    async def to(self, client: ModelClient, calls: Sequence[Call]) -> list[Answer]:
        """The calls' answers, in their order; calls of one block of records, whose order never changes.

        Raises:
            ServerRefused: the server would refuse every request.
        """
        batch_client = self._batch_clients.get(id(client))
        if batch_client is not None:
            return await self._batched(batch_client, calls)
        return await _all([self._single(client, call) for call in calls])

    async def _single(self, client: ModelClient, call: Call) -> Answer:
        key = call.key
        known = self._reuse(call, key)
        if known is not None:
            return known
        try:
            completion = await client.complete(call.request)
        except CallFailed as failure:
            self._note_failure(call, failure)
            return failure
        self._note([(key, call, completion)])
        return completion

    async def _batched(self, client: BatchClient, calls: Sequence[Call]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, call in enumerate(calls):
            known = None if call.request.is_random else self._reuse(call, call.key)
            if known is not None:
                # Nothing random is in it: it may be reused alone, whatever it was sent with.
                answers[index] = known
            else:
                groups.setdefault(_alike(call.request), []).append(index)
        tasks: list[Coroutine[Any, Any, None]] = []
        for indices in groups.values():
            indices.sort(key=lambda index: _length(calls[index].request))
            tasks += [
                self._batch(client, calls, chunk, answers) for chunk in _chunks(indices, calls, client.batch_size)
            ]
        await _all(tasks)
        return [answers[index] for index in range(len(calls))]

    async def _batch(
        self, client: BatchClient, calls: Sequence[Call], chunk: Sequence[int], answers: dict[int, Answer]
    ) -> None:
        """Answer calls that are sent together; where they are random, all from the journal or all from the server."""
        keys = [calls[index].key for index in chunk]
        name = content_hash(keys, length=32)
        seed = None
        if calls[chunk[0]].request.is_random:
            # What is sampled depends on the whole batch, so its name belongs to each key, and its seed to its name.
            keys = [content_hash([key, name], length=32) for key in keys]
            seed = derive_seed(self._seed, name)
            known = [self._lookup(key) for key in keys]
            if None not in known:
                for index, completion in zip(chunk, known, strict=True):
                    assert completion is not None
                    answers[index] = completion
                    self._tally.reused[calls[index].step] += 1
                return
        completions = await client.complete_batch([calls[index].request for index in chunk], seed)
        done: list[tuple[str, Call, Completion]] = []
        for key, index, completion in zip(keys, chunk, completions, strict=True):
            answers[index] = completion
            if isinstance(completion, CallFailed):
                self._note_failure(calls[index], completion)
            else:
                done.append((key, calls[index], completion))
        self._note(done, batch=name)

    def _lookup(self, key: str) -> Completion | None:
        return self._journal.lookup(key) if self._journal is not None else None

    def _reuse(self, call: Call, key: str) -> Completion | None:
        completion = self._lookup(key)
        if completion is not None:
            self._tally.reused[call.step] += 1
        return completion

    def _note(self, done: Sequence[tuple[str, Call, Completion]], *, batch: str | None = None) -> None:
        for _, call, _ in done:
            self._tally.calls[call.step] += 1
        if self._journal is not None and done:
            self._journal.append(done, batch=batch)

    def _note_failure(self, call: Call, failure: CallFailed) -> None:
        self._tally.failed += 1
        if (call.step, failure.reason) not in self._told:
            self._told.add((call.step, failure.reason))
            _log.warning("%s: call failed for %s: %s (the first of its kind)", call.step, call.record, failure)
        if self._journal is not None:
            self._journal.append_failure(call, failure)


def _alike(request: Request) -> tuple[Any, ...]:
    """Requests with equal values here may stand in one batch."""
    return (bool(request.choices), replace(request.sampling, seed=None))


def _length(request: Request) -> int:
    return sum(len(message.content) for message in request.conversation.messages)


def _chunks(indices: Sequence[int], calls: Sequence[Call], size: int) -> Iterator[list[int]]:
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
    if len(coroutines) == 1:
        return [await coroutines[0]]
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
