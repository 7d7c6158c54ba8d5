# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The engine keeps a continuously batching server's slots as full as a closed loop does: simulated, so to the step.

What `python -m benchmarks.slots` measures over sockets, without their noise.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

import pytest

from benchmarks.jumping_time import in_jumping_time
from benchmarks.standin.replies import Lengths, content_digest, reply_to
from benchmarks.standin.slots import Job, Pace, Slots
from benchmarks.workload import SAMPLING, SEED, constitution, prompts
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.engine.engine import Engine, Outcome
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.models import ClientStats, Completion, Request
from nemo_aligner_cai.models.http.semaphore import PrioritySemaphore
from nemo_aligner_cai.stages.revisions import RevisionPipeline, RevisionSample

SLOTS, ROWS = 64, 512


class SimulatedServer:
    """A `ModelClient` whose replies take as long as a server with `SLOTS` slots needs for them."""

    name = "simulated"
    concurrency = SLOTS

    def __init__(self, sigma: float = 0.8) -> None:
        self.identity: Mapping[str, Any] = {"model": self.name}
        self.stats = ClientStats()
        self._lengths = Lengths(sigma=sigma)
        self.slots = Slots(Pace(slots=SLOTS, token_seconds=1.0, prefill_seconds=0.0, cache_tokens=0))
        self._semaphore = PrioritySemaphore(SLOTS)

    async def complete(self, request: Request) -> Completion:
        await self._semaphore.acquire(request.priority)
        try:
            body = {"messages": request.messages, "seed": request.sampling.seed}
            reply = reply_to(body, content_digest(body), self._lengths)
            done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            self.slots.submit(Job(b"", b"", reply.tokens, done.set_result))
            await done
            return Completion(reply.text, "stop")
        finally:
            self._semaphore.release()

    async def close(self) -> None:
        pass


def revising(server: SimulatedServer) -> RevisionPipeline:
    return RevisionPipeline(server, constitution(), (), PromptTemplates(), SAMPLING, seed=SEED)


def records(first: int) -> Iterator[RevisionSample]:
    return map(RevisionSample, prompts(ROWS, first=first))


async def ours(server: SimulatedServer, first: int) -> None:
    outcomes: list[Outcome[RevisionSample]] = []
    await Engine(seed=SEED).run(records(first), revising(server).steps(), outcomes.append)
    assert [outcome.skipped for outcome in outcomes] == [None] * ROWS


async def closed_loop(server: SimulatedServer, first: int) -> None:
    steps, waiting = revising(server).steps(), records(first)

    async def work() -> None:
        for record in waiting:
            for step in steps:
                (request,) = step.requests(record)
                seeded = request.scheduled(seed=derive_seed(SEED, record.id, step.name, 0), priority=0)
                record = step.absorb(record, [await server.complete(seeded)])

    await asyncio.gather(*[work() for _ in range(SLOTS)])


def took(server: SimulatedServer, work: Coroutine[Any, Any, None]) -> float:
    """Decode steps until the last answer."""

    async def run() -> float:
        await work
        return asyncio.get_running_loop().time()

    return in_jumping_time(run())


@pytest.mark.slow
def test_the_slots_are_as_full_as_a_closed_loop_keeps_them() -> None:
    ratios: list[float] = []
    for first in range(0, 3 * ROWS, ROWS):
        mine, theirs = SimulatedServer(), SimulatedServer()
        ratios.append(took(theirs, closed_loop(theirs, first)) / took(mine, ours(mine, first)))
        assert mine.slots.written_tokens == theirs.slots.written_tokens, "both do the same job"
    assert sum(ratios) / len(ratios) >= 0.97


def test_replies_of_one_length_fill_every_slot_to_the_end() -> None:
    server = SimulatedServer(sigma=0.0)
    steps = took(server, ours(server, 0))
    assert server.slots.busy == pytest.approx(SLOTS * steps)
