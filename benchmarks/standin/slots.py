# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The time that a continuously batching engine takes: slots, a queue in front of them, and a prefix cache.

Whatever sits in a slot gets one token in each decode step; a request enters a free slot at once, and begins with the
next step. Before its first token, the part of its prompt that the cache does not know is read. Nothing is computed:
timers say when a reply would be ready.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.standin.replies import BYTES_PER_TOKEN


@dataclass(frozen=True)
class Pace:
    """How fast the engine is.

    Attributes:
        slots: sequences in a decode step at most.
        token_seconds: a decode step.
        prefill_seconds: for each prompt token that is not in the prefix cache.
        cache_tokens: the size of the prefix cache; 0 is none.
        block_tokens: the prefix cache knows whole blocks only.
        time_scale: multiplies all times; 0 answers at once and knows no slots.
    """

    slots: int = 64
    token_seconds: float = 0.02
    prefill_seconds: float = 0.0001
    cache_tokens: int = 1_000_000
    block_tokens: int = 16
    time_scale: float = 1.0


class PrefixCache:
    """The beginnings of texts that the engine has read, in blocks; the least recently used ones are forgotten."""

    def __init__(self, *, tokens: int, block_tokens: int) -> None:
        """`tokens` is what fits."""
        self._most = tokens // block_tokens
        self._size = block_tokens * BYTES_PER_TOKEN
        self._block_tokens = block_tokens
        self._known: dict[int, None] = {}

    def read(self, text: bytes) -> int:
        """Tokens at the beginning of `text` that are known; from now on all its whole blocks are."""
        if not self._most:
            return 0
        chain: list[int] = []
        name = 0
        for start in range(0, len(text) - self._size + 1, self._size):
            # A block is known together with all that stands before it.
            name = hash((name, text[start : start + self._size]))
            chain.append(name)
        hits = next((place for place, name in enumerate(chain) if name not in self._known), len(chain))
        # The end of a text is forgotten before its beginning, without which it is worth nothing.
        for name in reversed(chain):
            self._known.pop(name, None)
            self._known[name] = None
        while len(self._known) > self._most:
            del self._known[next(iter(self._known))]
        return hits * self._block_tokens


@dataclass(eq=False)
class Job:
    """A reply under way. `text` is what the cache knows at its end: prompt and reply."""

    prompt: bytes
    text: bytes
    tokens: int
    done: Callable[[int], None]
    begin: float = 0.0
    seconds: float = 0.0
    cached: int = 0
    timer: asyncio.TimerHandle | None = None
    abandoned: bool = False


class Slots:
    """Runs jobs; see the module. `busy` counts the slot-seconds that were put to use."""

    def __init__(self, pace: Pace) -> None:
        """Nothing runs yet."""
        self._pace = pace
        self._step = pace.token_seconds * pace.time_scale
        self._prefill = pace.prefill_seconds * pace.time_scale
        self._cache = PrefixCache(tokens=pace.cache_tokens, block_tokens=pace.block_tokens)
        self._queue: deque[Job] = deque()
        self._running: set[Job] = set()
        self.reset_counts()

    def reset_counts(self) -> None:
        """Start counting anew; what runs goes on, and the cache stays warm."""
        self.busy = 0.0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.written_tokens = 0

    @property
    def used(self) -> float:
        """The slot-seconds that were put to use so far, those of running jobs included."""
        now = asyncio.get_running_loop().time()
        return self.busy + sum(max(0.0, now - job.begin) for job in self._running)

    def submit(self, job: Job) -> None:
        """Run a job, or let it wait; `job.done` is called with the prompt tokens that the cache knew."""
        if not self._pace.time_scale:
            self._read(job)
            self._finish(job)
        elif len(self._running) < self._pace.slots:
            self._start(job)
        else:
            self._queue.append(job)

    def abandon(self, job: Job) -> None:
        """Whoever asked is gone: give the slot to the next one."""
        job.abandoned = True
        if job in self._running:
            assert job.timer is not None
            job.timer.cancel()
            self.busy += max(0.0, asyncio.get_running_loop().time() - job.begin)
            self._free(job)

    def _start(self, job: Job) -> None:
        self._running.add(job)
        loop = asyncio.get_running_loop()
        uncached = self._read(job)
        job.begin = math.ceil(loop.time() / self._step) * self._step
        job.seconds = uncached * self._prefill + job.tokens * self._step
        job.timer = loop.call_at(job.begin + job.seconds, self._end, job)

    def _read(self, job: Job) -> int:
        """Read a job's prompt; returns the tokens of it that the cache did not know."""
        prompt_tokens = -(-len(job.prompt) // BYTES_PER_TOKEN)
        job.cached = self._cache.read(job.prompt)
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += job.cached
        return prompt_tokens - job.cached

    def _end(self, job: Job) -> None:
        self.busy += job.seconds
        self._free(job)
        self._finish(job)

    def _finish(self, job: Job) -> None:
        self._cache.read(job.text)
        self.written_tokens += job.tokens
        job.done(job.cached)

    def _free(self, job: Job) -> None:
        self._running.discard(job)
        while self._queue and len(self._running) < self._pace.slots:
            waiting = self._queue.popleft()
            if not waiting.abandoned:
                self._start(waiting)
