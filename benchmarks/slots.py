# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How full a continuously batching server's slots are kept, against a closed-loop driver on the same finite job.

Three drivers take the same prompts through answer, critique and revision, each on a stand-in of its own whose prefix
cache is cold. The bodies are the same to the byte, so the model writes the same tokens:

    ours         `generate_revisions` with journal and outputs
    closed loop  as many workers as slots; each takes the next prompt and makes its three calls
    barriers     upstream's way: as many prompts as slots; all answers, then all critiques, then all revisions

A finite job with long-tailed replies cannot fill all slots to its very end, so the closed loop is the measure.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks.standin import standin
from benchmarks.table import Figure, show
from benchmarks.workload import SAMPLING, SEED, constitution, few_shots, prompts, revise
from nemo_aligner_cai.constitution.prompt_templates import PromptTemplates
from nemo_aligner_cai.engine.seeds import derive_seed
from nemo_aligner_cai.models import Completion, OpenAIClient, ScriptedClient
from nemo_aligner_cai.stages.revisions import RevisionPipeline, RevisionSample

RATIO = 0.97
_FEWER = 4
"""The barriers get this part of the prompts: they take so much longer, and their share of slots is the same."""


@dataclass(frozen=True)
class Job:
    """What is to be done: `rows` prompts, those from `first` on, with so many requests in flight."""

    first: int
    rows: int
    slots: int

    def records(self) -> list[RevisionSample]:
        """The prompts' records, which nothing has been done with."""
        return list(map(RevisionSample, prompts(self.rows, first=self.first)))


Driver = Callable[[str, Job], Coroutine[Any, Any, None]]


async def ours(url: str, job: Job) -> None:
    """This package."""
    client = OpenAIClient(url, "standin", concurrency=job.slots)
    with tempfile.TemporaryDirectory() as folder:
        await revise((record.prompt for record in job.records()), client, Path(folder), shots=few_shots())


class PlainChat:
    """The shortest way from a record to the next: no journal, no retries, nothing counted."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """`url` ends in /v1."""
        self._session, self._url = session, f"{url}/chat/completions"
        # The steps are those of the package, so that the bodies are; their client is never asked.
        self.steps = RevisionPipeline(
            ScriptedClient(), constitution(), few_shots(), PromptTemplates(), SAMPLING, seed=SEED
        ).steps()

    async def take(self, record: RevisionSample, number: int) -> RevisionSample:
        """The record after one more step."""
        step = self.steps[number]
        (request,) = step.requests(record)
        body = {
            "model": "standin",
            "messages": request.messages,
            "max_tokens": SAMPLING.max_tokens,
            "temperature": SAMPLING.temperature,
            "top_p": SAMPLING.top_p,
            "seed": derive_seed(SEED, record.id, step.name, 0),
        }
        async with self._session.post(self._url, data=orjson.dumps(body)) as response:
            answer = orjson.loads(await response.read())
        return step.absorb(record, [Completion(answer["choices"][0]["message"]["content"], "stop")])


async def closed_loop(url: str, job: Job) -> None:
    """Workers without anything between them."""

    async def work(records: Iterator[RevisionSample], chat: PlainChat) -> None:
        for record in records:
            for number in range(len(chat.steps)):
                record = await chat.take(record, number)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        records = iter(job.records())
        chat = PlainChat(session, url)
        await asyncio.gather(*[work(records, chat) for _ in range(job.slots)])


async def barriers(url: str, job: Job) -> None:
    """Batch by batch, and step by step."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        records = job.records()
        chat = PlainChat(session, url)
        for start in range(0, len(records), job.slots):
            batch = records[start : start + job.slots]
            for number in range(len(chat.steps)):
                batch = await asyncio.gather(*[chat.take(record, number) for record in batch])


@dataclass(frozen=True)
class Tally:
    """Sums over runs: seconds from the first request to the last answer, slot-seconds put to use, tokens."""

    makespan: float = 0.0
    busy: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0

    def plus(self, stats: dict[str, Any]) -> "Tally":
        """With a stand-in's counts."""
        return replace(
            self,
            makespan=self.makespan + stats["makespan"],
            busy=self.busy + stats["slot_seconds"],
            prompt_tokens=self.prompt_tokens + stats["prompt_tokens"],
            cached_tokens=self.cached_tokens + stats["cached_tokens"],
            written_tokens=self.written_tokens + stats["written_tokens"],
        )


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slots", description="How full slots are kept.")
    parser.add_argument("--rows", type=int, default=512, help="prompts, three calls each (default: 512)")
    parser.add_argument("--slots", type=int, default=64, help="of the server, and requests in flight (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, each with other prompts (default: 3)")
    parser.add_argument("--time-scale", type=float, default=0.25, help="of a decode step of 20 ms (default: 0.25)")
    parser.add_argument("--cache-tokens", type=int, default=1_000_000, help="of the prefix cache (default: 1000000)")
    args = parser.parse_args()
    names = ("slots", "time_scale", "cache_tokens")
    options = [part for name in names for part in (f"--{name.replace('_', '-')}", str(getattr(args, name)))]
    tallies = {"ours": Tally(), "closed loop": Tally()}
    for number in range(args.repeats):
        job = Job(number * args.rows, args.rows, args.slots)
        for name, driver in (("ours", ours), ("closed loop", closed_loop)):
            tallies[name] = _run(tallies[name], driver, job, options)
    if len({(tally.prompt_tokens, tally.written_tokens) for tally in tallies.values()}) != 1:
        raise RuntimeError(f"the drivers did not send the same requests: {tallies}")
    few = Job(0, args.rows // _FEWER, args.slots)
    tallies["barriers"] = _run(Tally(), barriers, few, options)
    return show("Slots of a continuously batching server", _figures(tallies, args.slots), notes=_notes(args))


def _run(tally: Tally, driver: Driver, job: Job, options: Sequence[str]) -> Tally:
    with standin(*options) as server:
        asyncio.run(driver(server.url, job))
        stats = server.stats()
    if stats["repeated"]:
        raise RuntimeError(f"{stats['repeated']} requests were sent twice")
    return tally.plus(stats)


def _figures(tallies: dict[str, Tally], slots: int) -> list[Figure]:
    ratio = tallies["closed loop"].makespan / tallies["ours"].makespan
    figures = [Figure("ours against the closed loop", f"{ratio:.1%}", f">= {RATIO:.0%}", ratio >= RATIO)]
    for name, tally in tallies.items():
        figures += [
            Figure(f"{name}: slots in use", f"{tally.busy / (slots * tally.makespan):.1%}"),
            Figure(f"{name}: prompt tokens from the prefix cache", f"{tally.cached_tokens / tally.prompt_tokens:.1%}"),
            Figure(f"{name}: tokens written", f"{tally.written_tokens / tally.makespan:,.0f}/s"),
        ]
    return figures


def _notes(args: argparse.Namespace) -> list[str]:
    return [
        f"{args.repeats} x {args.rows} prompts x 3 calls (barriers: {args.rows // _FEWER}), {args.slots} slots",
        f"decode step {20 * args.time_scale:g} ms, replies log-normal: median 120 tokens, sigma 0.8, at most 1024",
        f"prefix cache of {args.cache_tokens:,} tokens",
    ]


if __name__ == "__main__":
    sys.exit(main())
