# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""In-process model clients for tests, documentation and ``--dry-run``."""

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nemo_aligner_cai.models.base import CallFailed, ClientStats, Completion, Request

Reply = Callable[[Request], str | Completion | CallFailed]
"""Function that answers a request. It must be deterministic if runs are to be reproducible."""


def default_reply(request: Request) -> Completion:
    """Return a text, or scores for choices, that depends only on the request and its seed."""
    text = repr((request.conversation.to_messages(), request.sampling.to_dict(), request.choices))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    if not request.choices:
        return Completion(f"This is a scripted reply ({digest.hex()[:12]}).", "stop")
    weights = [1 + digest[position % len(digest)] for position in range(len(request.choices))]
    scores = {choice: math.log(weight / sum(weights)) for choice, weight in zip(request.choices, weights, strict=True)}
    return Completion("", "choices", choice_logprobs=scores)


class ScriptedClient:
    """A `ModelClient` that answers with a function."""

    def __init__(
        self,
        reply: Reply = default_reply,
        *,
        name: str = "scripted",
        concurrency: int = 8,
        identity: Mapping[str, Any] | None = None,
        remember: bool = True,
    ) -> None:
        """Create a client.

        Args:
            reply: answers the requests.
            name: the model's name.
            concurrency: maximum number of concurrent requests.
            identity: the identity of another client, to get that client's journal keys; None derives it from `name`.
            remember: append every request to `requests`, which needs memory in a long run.
        """
        self.name = name
        self.identity: Mapping[str, Any] = identity or {"server": "scripted", "model": name}
        self.concurrency = concurrency
        self.stats = ClientStats()
        self.requests: list[Request] = []
        self._remember = remember
        self._reply = reply
        self._semaphore = asyncio.Semaphore(concurrency)

    async def complete(self, request: Request) -> Completion:
        """Answer one request."""
        async with self._semaphore:
            await asyncio.sleep(0)
            completion = self._answer(request)
        if isinstance(completion, CallFailed):
            raise completion
        return completion

    def _answer(self, request: Request) -> Completion | CallFailed:
        if self._remember:
            self.requests.append(request)
        reply = self._reply(request)
        if isinstance(reply, CallFailed):
            return reply
        completion = Completion(reply, "stop") if isinstance(reply, str) else reply
        self.stats.count(completion)
        return completion

    async def close(self) -> None:
        """Do nothing."""


class ScriptedBatchClient(ScriptedClient):
    """A `BatchClient` with one seed per batch, like NeMo's server: each sample depends on its batch.

    The request that `reply` receives has a seed derived from the batch's seed and size and from its position.
    """

    def __init__(
        self,
        reply: Reply = default_reply,
        *,
        batch_size: int = 4,
        concurrency: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(reply, concurrency=concurrency, **options)
        self.batch_size = batch_size
        self.batches: list[int] = []

    async def complete_batch(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """Answer a batch."""
        size = len(requests)
        self.batches.append(size)
        await asyncio.sleep(0)
        seeds = [None if seed is None else hash((seed, size, position)) & 0xFFFFFF for position in range(size)]
        return [
            self._answer(replace(request, sampling=replace(request.sampling, seed=own_seed)))
            for request, own_seed in zip(requests, seeds, strict=True)
        ]
