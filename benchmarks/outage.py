# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""A server that is away for a minute in the middle of a run: nothing may be lost, and nobody has to start anything.

The command runs twice on the same prompts: once undisturbed, once with the server's socket closed and every connection
broken off when a third of the answers are given. Its exit code and its files have to be the same.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.command import REVISIONS, SlCai
from benchmarks.standin import standin
from benchmarks.table import Figure, show
from benchmarks.workload import CALLS

_LENGTHS = ("--median-tokens", "60", "--time-scale", "0.25")


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description="A server that goes away.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for which the server is away (default: 60)")
    parser.add_argument("--rows", type=int, default=1000, help="prompts, three calls each (default: 1000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with standin(*_LENGTHS) as server:
            calm = SlCai(Path(folder, "calm"), server.url).prepare(args.rows)
            code = calm.run()
        if code:
            raise RuntimeError(f"the undisturbed run failed:\n{calm.said()}")
        with standin(*_LENGTHS) as server:
            hit = SlCai(Path(folder, "hit"), server.url).prepare(args.rows)
            started = time.monotonic()
            process = hit.start()
            try:
                while (answered := server.stats()["answered"]) < args.rows * CALLS // 3 and process.poll() is None:
                    time.sleep(0.05)
                server.go_away(args.seconds)
                code = process.wait()
            finally:
                process.kill()
            seconds = time.monotonic() - started
            repeated = server.stats()["repeated"]
        if code:
            sys.stdout.write(hit.said())
        outputs = hit.outputs()
        rows = outputs.get(REVISIONS, b"").count(b"\n")
        same = outputs == calm.outputs()
    return show(
        f"A server away for {args.seconds:g} s",
        [
            Figure("exit code", str(code), "0", code == 0),
            Figure("rows", f"{rows} of {args.rows}", f"{args.rows}", rows == args.rows),
            Figure("files of an undisturbed run", "the same bytes" if same else "other bytes", "same", same),
            Figure("answers given before", f"{answered} of {args.rows * CALLS}"),
            Figure("calls asked again", f"{repeated} (those in flight when the server went)"),
            Figure("the run took", f"{seconds:.0f} s"),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
