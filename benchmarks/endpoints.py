# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Many servers that come and go: lost calls, slots in use, and CPU time per call against one server.

One process runs SL-CAI on 1,000 stand-ins with two slots each, of which 1 % leave every minute and come back, and then
on one stand-in with as many slots. Both have the same prompts, replies and concurrency, so the difference in CPU time
is the cost of choosing among servers, of their connections, and of those that leave.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.client_cpu import Cost, cpu_seconds
from benchmarks.standin import standin_pool
from benchmarks.table import Figure, show
from benchmarks.workload import CALLS, few_shots, prompts, revise
from nemo_aligner_cai.models import OpenAIClient

MIN_IN_USE, MAX_CPU_RATIO = 0.9, 2.0
_RAMP_S = 15.0
"""Seconds after the first answer that do not count: the slots are being filled."""
_LAST_SHARE = 0.8
"""Share of the answers after which the seconds do not count: a finite job with long replies ends with empty slots."""
_MILLION = 1e6


@dataclass(frozen=True)
class Run:
    """One run: its cost, the calls and rows that were lost, and the figures of the stand-ins."""

    cost: Cost
    lost: int
    retries: int
    stats: dict[str, Any]

    @property
    def in_use(self) -> float:
        """Share of the slots of the servers present that were in use, without the beginning and the end."""
        samples = self.stats["samples"]
        first = next(sample for sample in samples if sample[3])
        inner = [s for s in samples if s[0] >= first[0] + _RAMP_S and s[3] <= _LAST_SHARE * self.stats["answered"]]
        return (inner[-1][1] - inner[0][1]) / (inner[-1][2] - inner[0][2])


def measure(endpoints: int, slots: int, args: argparse.Namespace, *, leaving: float) -> Run:
    """Run SL-CAI on so many servers with so many slots each."""
    options = {
        "--endpoints": endpoints,
        "--slots": slots,
        "--token-seconds": args.token_seconds,
        "--leaving-per-minute": leaving,
        "--away-seconds": args.away_seconds,
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "endpoints")
        folder.mkdir()
        with standin_pool(folder, *(str(part) for option in options.items() for part in option)) as server:
            client = OpenAIClient(folder, "standin", concurrency=slots)
            started, cpu = time.perf_counter(), cpu_seconds()
            work = revise(prompts(args.rows), client, Path(scratch), shots=few_shots(args.shot_messages))
            summary = asyncio.run(work)
            cost = Cost(summary.calls, time.perf_counter() - started, cpu_seconds() - cpu)
            stats = server.stats()
    lost = CALLS * args.rows - summary.calls + args.rows - summary.counts.written
    return Run(cost, lost, client.stats.retries, stats)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endpoints", description=__doc__)
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=2, help="of each server (default: 2)")
    parser.add_argument("--rows", type=int, default=4000, help="prompts, three calls each (default: 4000)")
    parser.add_argument("--token-seconds", type=float, default=0.4, help="one decode step (default: 0.4)")
    parser.add_argument("--leaving-per-minute", type=float, default=0.01, help="share of the servers (default: 0.01)")
    parser.add_argument("--away-seconds", type=float, default=20.0, help="until they return (default: 20)")
    parser.add_argument("--shot-messages", type=int, default=20, help="few-shot messages (default: 20)")
    args = parser.parse_args()
    many = measure(args.endpoints, args.slots, args, leaving=args.leaving_per_minute)
    one = measure(1, args.endpoints * args.slots, args, leaving=0.0)
    ratio = many.cost.cpu_ms / one.cost.cpu_ms
    hours = CALLS * _MILLION * many.cost.cpu_ms / 1e3 / 3600
    departures = many.stats["departures"]
    return show(
        f"{args.endpoints:,} servers, of which {args.leaving_per_minute:.0%} leave every minute",
        [
            Figure("calls and rows lost", f"{many.lost} of {CALLS * args.rows:,}", "0", many.lost == 0),
            Figure("slots in use", f"{many.in_use:.1%}", f">= {MIN_IN_USE:.0%}", many.in_use >= MIN_IN_USE),
            Figure("CPU per call / with one server", f"{ratio:.2f}", f"<= {MAX_CPU_RATIO:g}", ratio <= MAX_CPU_RATIO),
            Figure("CPU per call", f"{many.cost.cpu_ms:.3f} ms; {one.cost.cpu_ms:.3f} ms with one server"),
            Figure("calls", f"{many.cost.rate:,.0f}/s; {one.cost.rate:,.0f}/s with one server"),
            Figure("slots in use with one server", f"{one.in_use:.1%}"),
            Figure("departures", f"{departures}, {many.retries} attempts were repeated"),
            Figure("CPU of the client for 10^6 prompts", f"{hours:.2f} h in one process, {CALLS} calls each"),
        ],
        notes=[
            f"{args.rows:,} prompts, {args.slots} slots each, {many.cost.seconds:.0f} s and {one.cost.seconds:.0f} s, "
            f"{args.shot_messages} few-shot messages at least",
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
