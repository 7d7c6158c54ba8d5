# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""What a call costs the client: CPU time, and calls per second of one process.

A whole run of SL-CAI is measured (prompts, engine, journal, outputs), against the stand-in in another process, which
answers as fast as it can. The requests are chats of about 25 messages: few-shots, a prompt, and the chain so far.

The floor is what the same number of such requests costs with nothing but aiohttp and orjson: bodies in, texts out.
"""

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from benchmarks.profiler import sampled
from benchmarks.standin import standin
from benchmarks.table import Figure, show
from benchmarks.workload import CALLS, few_shots, prompt_text, prompts, revise
from nemo_aligner_cai.models import OpenAIClient

CPU_MS, CALLS_PER_SECOND = 0.5, 2000.0
_SHOT_MESSAGES = 20
"""Few-shot messages at least; with the chain's 1, 3 or 5 that makes about 25."""


@dataclass(frozen=True)
class Cost:
    """Of one run: calls, seconds on the clock, seconds of CPU time."""

    calls: int
    seconds: float
    cpu: float

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per call."""
        return 1e3 * self.cpu / self.calls

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds


def cpu_seconds() -> float:
    """User and system time of this process so far, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def floor(url: str, rows: int, concurrency: int) -> Cost:
    """As many calls with nothing around them."""
    shots = [message for shot in few_shots(_SHOT_MESSAGES) for message in shot.to_messages()]

    async def work(numbers: Iterator[int], session: aiohttp.ClientSession) -> None:
        for number in numbers:
            messages = [*shots, {"role": "user", "content": prompt_text(number)}]
            body = orjson.dumps({"model": "standin", "messages": messages, "max_tokens": 1024, "seed": number})
            async with session.post(f"{url}/chat/completions", data=body) as response:
                orjson.loads(await response.read())["choices"][0]["message"]["content"]

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            numbers = iter(range(CALLS * rows))
            await asyncio.gather(*[work(numbers, session) for _ in range(concurrency)])

    started, cpu = time.perf_counter(), cpu_seconds()
    asyncio.run(run())
    return Cost(CALLS * rows, time.perf_counter() - started, cpu_seconds() - cpu)


def measure(url: str, rows: int, concurrency: int, first: int) -> Cost:
    """One run of SL-CAI over new prompts."""
    asked = list(prompts(rows, first=first))
    client = OpenAIClient(url, "standin", concurrency=concurrency)
    with tempfile.TemporaryDirectory() as folder:
        started, cpu = time.perf_counter(), cpu_seconds()
        summary = asyncio.run(revise(asked, client, Path(folder), shots=few_shots(_SHOT_MESSAGES)))
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu
    if summary.calls != CALLS * rows or summary.failed:
        raise RuntimeError(f"{CALLS * rows} calls were due, {summary.calls} answered, {summary.failed} failed")
    return Cost(summary.calls, seconds, cpu)


def _medians(costs: Sequence[Cost]) -> tuple[float, float]:
    return statistics.median(cost.cpu_ms for cost in costs), statistics.median(cost.rate for cost in costs)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_cpu", description=__doc__)
    parser.add_argument("--rows", type=int, default=2500, help="prompts of a run, three calls each (default: 2500)")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the median counts (default: 3)")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--profile", action="store_true", help="show where the CPU time of one more run goes")
    args = parser.parse_args()
    messages = [sum(len(shot.turns) for shot in few_shots(_SHOT_MESSAGES)) + turns for turns in (1, 3, 5)]
    with standin("--time-scale", "0", "--cache-tokens", "0") as server:
        measure(server.url, 200, args.concurrency, 0)
        costs: list[Cost] = []
        floors: list[Cost] = []
        for number in range(args.repeats):
            costs.append(measure(server.url, args.rows, args.concurrency, 200 + args.rows * number))
            floors.append(floor(server.url, args.rows, args.concurrency))
        if args.profile:
            with sampled() as samples:
                cost = measure(server.url, args.rows, args.concurrency, 200 + args.rows * args.repeats)
            samples.show(cost.calls, cost.cpu)
    cpu_ms, rate = _medians(costs)
    floor_ms, floor_rate = _medians(floors)
    return show(
        "Client: cost of a few-shot chat call, with engine, journal and outputs",
        [
            Figure("CPU per call", f"{cpu_ms:.3f} ms", f"<= {CPU_MS} ms", cpu_ms <= CPU_MS),
            Figure(
                "calls of one process", f"{rate:,.0f}/s", f">= {CALLS_PER_SECOND:,.0f}/s", rate >= CALLS_PER_SECOND
            ),
            Figure("floor: aiohttp and orjson alone", f"{floor_ms:.3f} ms, {floor_rate:,.0f}/s"),
        ],
        notes=[
            f"median of {args.repeats} runs of {CALLS * args.rows} calls, {args.concurrency} in flight, chats of "
            f"{', '.join(map(str, messages))} messages",
            "runs: " + ", ".join(f"{cost.cpu_ms:.3f} ms {cost.rate:,.0f}/s" for cost in costs),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
