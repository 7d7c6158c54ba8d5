# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""How much memory a run takes, and how many bytes it writes, as the number of prompts grows.

Each size is one run of SL-CAI in a fresh process: prompts from a file, a model that answers at once in the same
process, journal, revisions and SFT rows to disk. Memory is the process's peak (VmHWM), interpreter and libraries
included; bytes are all that the process has given to write() (`wchar`), compared by row.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.standin.replies import BYTES_PER_TOKEN, content_digest, words
from benchmarks.table import Figure, show
from benchmarks.workload import CALLS, few_shots, prompt_text, revise
from nemo_aligner_cai.data.prompt_files import read_prompts
from nemo_aligner_cai.files import RowCounts, write_jsonl
from nemo_aligner_cai.models import ClientStats, Completion, ModelClient, Request, Usage

MEGABYTES, SPREAD = 150.0, 0.05
_REPLY_TOKENS = 60
"""All replies are equally long, so that a row is a row at every size."""


class InstantModel:
    """A `ModelClient` that answers at once and remembers nothing."""

    name = "instant"
    concurrency = 64

    def __init__(self) -> None:
        self.identity: Mapping[str, Any] = {"server": "instant", "model": self.name}
        self.stats = ClientStats()

    async def complete(self, request: Request) -> Completion:
        """See `ModelClient`."""
        await asyncio.sleep(0)
        digest = content_digest({"messages": request.messages, "seed": request.sampling.seed})
        text = words(digest, _REPLY_TOKENS)
        read = sum(len(message["content"]) for message in request.messages) // BYTES_PER_TOKEN
        completion = Completion(text, "stop", Usage(read, _REPLY_TOKENS), raw={"message": {"content": text}})
        self.stats.count(completion)
        return completion

    async def close(self) -> None:
        """See `ModelClient`."""


def run_here(prompts: Path, folder: Path, rows: int) -> dict[str, float]:
    """One run in this process; returns its peak of memory, the bytes that it wrote, and the seconds that it took."""
    client: ModelClient = InstantModel()
    counts = RowCounts()
    written, started = process_figure("io", "wchar"), time.monotonic()
    summary = asyncio.run(revise(read_prompts(prompts, counts=counts), client, folder, shots=few_shots()))
    if summary.counts.written != rows or summary.calls != CALLS * rows:
        raise RuntimeError(f"{rows} rows were due: {summary.counts}, {summary.calls} calls")
    return {
        "kilobytes": process_figure("status", "VmHWM"),
        "bytes": process_figure("io", "wchar") - written,
        "files": sum(file.stat().st_size for file in folder.iterdir()),
        "seconds": time.monotonic() - started,
    }


def process_figure(file: str, name: str) -> int:
    """A number that Linux keeps of this process."""
    lines = Path("/proc/self", file).read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def run_apart(rows: int) -> dict[str, float]:
    """One run in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        prompts, out = Path(folder, "prompts.jsonl"), Path(folder, "out")
        write_jsonl(prompts, ({"prompt": prompt_text(number)} for number in range(rows)))
        out.mkdir()
        command = [sys.executable, "-m", "benchmarks.memory", "--here", str(prompts), str(out), "--rows", str(rows)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory and bytes by rows.")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="sizes (default: 1000 10000 100000)"
    )
    parser.add_argument("--here", nargs=2, metavar=("PROMPTS", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        sys.stdout.write(json.dumps(run_here(Path(args.here[0]), Path(args.here[1]), args.rows[0])))
        return 0
    figures: list[Figure] = []
    first: float | None = None
    for rows in args.rows:
        found = run_apart(rows)
        megabytes, per_row = found["kilobytes"] * 1024 / 1e6, found["bytes"] / rows
        first = first or per_row
        drift = per_row / first - 1
        # The next size may take many minutes.
        sys.stderr.write(f"{rows:,} prompts: {megabytes:.0f} MB, {per_row:,.0f} bytes per row\n")
        figures += [
            Figure(
                f"{rows:,} prompts: peak of memory",
                f"{megabytes:.0f} MB",
                f"<= {MEGABYTES:.0f} MB",
                megabytes <= MEGABYTES,
            ),
            Figure(
                f"{rows:,} prompts: written per row",
                f"{per_row:,.0f} bytes ({drift:+.1%})",
                f"+-{SPREAD:.0%}",
                abs(drift) <= SPREAD,
            ),
            Figure(
                f"{rows:,} prompts: files per row, time",
                f"{found['files'] / rows:,.0f} bytes, {found['seconds']:.0f} s",
            ),
        ]
    return show("Memory and bytes written, by the number of prompts", figures)


if __name__ == "__main__":
    sys.exit(main())
