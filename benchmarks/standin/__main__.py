# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.standin``: serves until it is ended; its address is the first line that it prints."""

import argparse
import asyncio
import signal
import sys

from benchmarks.standin.faults import KINDS, Faults
from benchmarks.standin.replies import Lengths
from benchmarks.standin.server import StandIn
from benchmarks.standin.slots import Pace


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.standin",
        description="A stand-in for an OpenAI-compatible model server that batches continuously.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    pace, lengths = Pace(), Lengths()
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--slots", type=int, default=pace.slots, help="sequences in a decode step")
    parser.add_argument("--token-seconds", type=float, default=pace.token_seconds, help="one decode step")
    parser.add_argument("--prefill-seconds", type=float, default=pace.prefill_seconds, help="per prompt token")
    parser.add_argument("--cache-tokens", type=int, default=pace.cache_tokens, help="of the prefix cache; 0 is none")
    parser.add_argument("--time-scale", type=float, default=pace.time_scale, help="0 answers as fast as it can")
    parser.add_argument("--median-tokens", type=float, default=lengths.median, help="of a reply")
    parser.add_argument("--sigma", type=float, default=lengths.sigma, help="of the logarithm of a reply's length")
    parser.add_argument("--most-tokens", type=int, default=lengths.most, help="of a reply")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="KIND=SHARE", help=f"may be repeated: {', '.join(KINDS)}"
    )
    parser.add_argument("--fault-seed", type=int, default=0, help="decides which attempts fail")
    parser.add_argument("--retry-after", type=float, default=1.0, help="seconds, sent with status 429")
    parser.add_argument("--slow-seconds", type=float, default=5.0, help="delay of an answer that the fault slow hits")
    parser.add_argument("--until-input-ends", action="store_true", help="end when standard input does")
    return parser


async def _serve(args: argparse.Namespace, faults: Faults) -> None:
    server = StandIn(
        pace=Pace(
            slots=args.slots,
            token_seconds=args.token_seconds,
            prefill_seconds=args.prefill_seconds,
            cache_tokens=args.cache_tokens,
            time_scale=args.time_scale,
        ),
        lengths=Lengths(args.median_tokens, args.sigma, args.most_tokens),
        faults=faults,
        retry_after=args.retry_after,
        slow_seconds=args.slow_seconds,
    )
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if args.until_input_ends:
        # Whoever started this holds the other end: were it killed, nobody else would end this process.
        loop.add_reader(sys.stdin, over.set)
    await server.start(args.port)
    sys.stdout.write(f"{server.url}\n")
    sys.stdout.flush()
    await over.wait()
    server.close()


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = _parser()
    args = parser.parse_args()
    try:
        faults = Faults.parse(args.fault, args.fault_seed)
    except ValueError as error:
        parser.error(str(error))
    asyncio.run(_serve(args, faults))
    return 0


if __name__ == "__main__":
    sys.exit(main())
