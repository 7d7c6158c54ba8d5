# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A model that is a function: for tests, documentation and ``--dry-run``. Nothing leaves the process."""

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nemo_aligner_cai.models.base import BatchClient, CallFailed, ClientStats, Completion, ModelClient, Request

Reply = Callable[[Request], str | Completion | CallFailed]
"""What a scripted model answers: a text, a whole completion, or a failure."""


def default_reply(request: Request) -> Completion:
    """A harmless sentence, or scores for choices, that depend on nothing but the request and its seed."""
    text = repr((request.conversation.to_messages(), request.sampling.to_dict(), request.choices))
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    if not request.choices:
        return Completion(f"This is a scripted reply ({digest.hex()[:12]}).", "stop")
    weights = [1 + digest[position % len(digest)] for position in range(len(request.choices))]
    scores = {choice: math.log(weight / sum(weights)) for choice, weight in zip(request.choices, weights, strict=True)}
    return Completion("", "choices", choice_logprobs=scores)


class ScriptedClient:
    """A `ModelClient` that answers by a function."""

    def __init__(
        self,
        reply: Reply = default_reply,
        *,
        name: str = "scripted",
        concurrency: int = 8,
        identity: Mapping[str, Any] | None = None,
        remember: bool = True,
    ) -> None:
        """Nothing is asked yet.

        Args:
            reply: must be deterministic where the same bytes are wanted again.
            name: as in `ModelClient`.
            concurrency: likewise.
            identity: another client's, where the journal's keys are to be that client's; None makes one of the name.
            remember: keep what was asked in `requests`, in order of arrival; a long run has no room for it.
        """
        self._identity = identity or {"server": "scripted", "model": name}
        self._remember = remember
        self.name = name
        self.concurrency = concurrency
        self.stats = ClientStats()
        self.requests: list[Request] = []
        self._reply = reply
        self._slots = asyncio.Semaphore(concurrency)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's name, or what was given."""
        return self._identity

    async def complete(self, request: Request) -> Completion:
        """See `ModelClient`."""
        async with self._slots:
            await asyncio.sleep(0)
            completion = self.answer(request)
        if isinstance(completion, CallFailed):
            raise completion
        return completion

    def answer(self, request: Request) -> Completion | CallFailed:
        """What the script says, counted."""
        if self._remember:
            self.requests.append(request)
        said = self._reply(request)
        if isinstance(said, CallFailed):
            return said
        completion = Completion(said, "stop") if isinstance(said, str) else said
        self.stats.count(completion)
        return completion

    async def close(self) -> None:
        """See `ModelClient`."""


class ScriptedBatchClient(ScriptedClient):
    """A `BatchClient` like NeMo's server: one seed for a batch, so that each sample depends on its neighbours.

    The seed that a request's script sees is made of the batch's seed and size and of the request's place in it.
    """

    def __init__(
        self,
        reply: Reply = default_reply,
        *,
        name: str = "scripted",
        concurrency: int = 2,
        batch_size: int = 4,
        identity: Mapping[str, Any] | None = None,
        remember: bool = True,
    ) -> None:
        """`batch_size` as in `BatchClient`."""
        super().__init__(reply, name=name, concurrency=concurrency, identity=identity, remember=remember)
        self.batch_size = batch_size
        self.batches: list[int] = []

    async def complete_batch(self, requests: Sequence[Request], seed: int | None) -> list[Completion | CallFailed]:
        """See `BatchClient`."""
        self.batches.append(len(requests))
        await asyncio.sleep(0)
        mixed = [
            hash((seed, len(requests), place)) & 0xFFFFFF if seed is not None else None
            for place in range(len(requests))
        ]
        return [
            self.answer(replace(request, sampling=replace(request.sampling, seed=place_seed)))
            for request, place_seed in zip(requests, mixed, strict=True)
        ]


def _conforms() -> tuple[ModelClient, ModelClient, BatchClient]:  # pyright: ignore[reportUnusedFunction]
    # Checked by the type checker: the scripts stand in for real clients everywhere.
    return ScriptedClient(), ScriptedBatchClient(), ScriptedBatchClient()
