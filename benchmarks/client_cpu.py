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
"""What a call costs the client: CPU time, and calls per second of one process.

A whole run of SL-CAI is measured (prompts, engine, journal, outputs), against the stand-in in another process, which
answers as fast as it can. The requests are chats of about 25 messages: few-shots, a prompt, and the chain so far.
"""

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.profiler import sampled
from benchmarks.standin import standin
from benchmarks.table import Figure, show
from benchmarks.workload import CALLS, few_shots, prompts, revise
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


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(url: str, rows: int, concurrency: int, first: int) -> Cost:
    """One run of SL-CAI over new prompts."""
    asked = list(prompts(first + rows))[first:]
    client = OpenAIClient(url, "standin", concurrency=concurrency)
    with tempfile.TemporaryDirectory() as folder:
        started, cpu = time.perf_counter(), _cpu()
        summary = asyncio.run(revise(asked, client, Path(folder), shots=few_shots(_SHOT_MESSAGES)))
        seconds, cpu = time.perf_counter() - started, _cpu() - cpu
    if summary.calls != CALLS * rows or summary.failed:
        raise RuntimeError(f"{CALLS * rows} calls were due, {summary.calls} answered, {summary.failed} failed")
    return Cost(summary.calls, seconds, cpu)


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
        costs = [
            measure(server.url, args.rows, args.concurrency, 200 + args.rows * number)
            for number in range(args.repeats)
        ]
        if args.profile:
            with sampled() as samples:
                cost = measure(server.url, args.rows, args.concurrency, 200 + args.rows * args.repeats)
            samples.show(cost.calls, cost.cpu)
    cpu_ms = statistics.median(cost.cpu_ms for cost in costs)
    rate = statistics.median(cost.rate for cost in costs)
    return show(
        "Client: cost of a few-shot chat call, with engine, journal and outputs",
        [
            Figure("CPU per call", f"{cpu_ms:.3f} ms", f"<= {CPU_MS} ms", cpu_ms <= CPU_MS),
            Figure(
                "calls of one process", f"{rate:,.0f}/s", f">= {CALLS_PER_SECOND:,.0f}/s", rate >= CALLS_PER_SECOND
            ),
        ],
        notes=[
            f"median of {args.repeats} runs of {CALLS * args.rows} calls, {args.concurrency} in flight, chats of "
            f"{', '.join(map(str, messages))} messages",
            "runs: " + ", ".join(f"{cost.cpu_ms:.3f} ms {cost.rate:,.0f}/s" for cost in costs),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
