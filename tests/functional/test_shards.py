# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""64 shards, several of them killed, finished by 16 runs and merged: the bytes of one run, no finished call repeated.

The runs that are killed are processes. All others are made in this process, one after the other: starting Python costs
more than their work.
"""

import time
from pathlib import Path

import pytest

from benchmarks.command import OUT, SlCai
from benchmarks.standin import Running, standin
from benchmarks.workload import CALLS
from nemo_aligner_cai.commands.generate import sl_cai
from nemo_aligner_cai.engine.journal_entries import read_entries

ROWS, SHARDS, WORKERS, KILLED, CONCURRENCY = 320, 64, 16, (0, 9, 31, 63), 2
REPLIES = ("--median-tokens", "60", "--sigma", "0.6", "--cache-tokens", "0", "--prefill-seconds", "0")
JOURNALS = "out/cai_output/sft.jsonl/cai_revisions.shards"


def run_here(run: SlCai, *options: str) -> int:
    """Run the command in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run.folder)
        return sl_cai.main(run.command(*options)[2:])


def kill_at_work(run: SlCai, server: Running, shard: int) -> None:
    """Run a shard until the server has answered some of its calls, and kill it."""
    before = server.stats()["answered"]
    process = run.start("--shard", f"{shard}/{SHARDS}")
    while server.stats()["answered"] < before + 4:
        assert process.poll() is None, run.said()
        time.sleep(0.01)
    process.kill()
    process.wait()


def keys(folder: Path, pattern: str) -> list[str]:
    """The keys of all whole calls in journals."""
    entries = (entry for path in sorted(folder.glob(pattern)) for _, _, entry in read_entries(path))
    return [entry["key"] for entry in entries if entry is not None and entry["kind"] == "call"]


def test_sixty_four_shards_are_finished_by_sixteen_runs(tmp_path: Path) -> None:
    with standin(*REPLIES, "--time-scale", "0") as server:
        whole = SlCai(tmp_path / "whole", server.url, CONCURRENCY).prepare(ROWS)
        assert run_here(whole) == 0
    run = SlCai(tmp_path / "shards", whole.url, CONCURRENCY).prepare(ROWS)
    folder = run.folder / JOURNALS
    with standin(*REPLIES, "--slots", "2", "--token-seconds", "0.001") as server:
        run = SlCai(run.folder, server.url, CONCURRENCY)
        for shard in KILLED:
            kill_at_work(run, server, shard)
    assert 0 < len(keys(folder, f"*-of-{SHARDS}.*")) < len(KILLED) * CALLS * ROWS // SHARDS
    torn = folder / f"09-of-{SHARDS}.journal.jsonl"
    torn.write_bytes(torn.read_bytes() + b'{"kind":"call","key":"')
    with standin(*REPLIES, "--time-scale", "0") as server:
        run = SlCai(run.folder, server.url, CONCURRENCY)
        for shard in range(40):
            if shard not in KILLED:
                assert run_here(run, "--shard", f"{shard}/{SHARDS}") == 0
        done = set(keys(folder, f"*-of-{SHARDS}.*"))
        server.reset()
        for shard in range(WORKERS):
            assert run_here(run, "--shard", f"{shard}/{WORKERS}", "--journal-from", f"{JOURNALS}/*-of-{SHARDS}.*") == 0
        stats = server.stats()
        assert (stats["requests"], stats["repeated"]) == (CALLS * ROWS - len(done), 0)
    assert not (run.folder / OUT).exists()
    # The server is gone.
    assert run_here(run, "--no-calls", "--journal-from", JOURNALS) == 0
    assert run.outputs() == whole.outputs()
