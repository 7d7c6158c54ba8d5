# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Servers that come and go during a run of the real command: nothing lost, the bytes of a run with one server."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from benchmarks.command import LEFT_OUT, REVISIONS, SlCai
from benchmarks.standin import standin, standin_pool
from benchmarks.workload import CALLS

ROWS = 150
SERVERS = 20
REPLIES = ("--median-tokens", "60", "--sigma", "0.5")


def test_twenty_servers_that_come_and_go_give_the_bytes_of_one(tmp_path: Path) -> None:
    with standin(*REPLIES, "--most-tokens", "1024", "--time-scale", "0") as server:
        calm = SlCai(tmp_path / "calm", server.url).prepare(ROWS)
        assert calm.run() == 0, calm.said()
    folder = tmp_path / "endpoints"
    folder.mkdir()
    pool = standin_pool(folder, *REPLIES, "--endpoints", str(SERVERS), "--slots", "2", "--token-seconds", "0.01")
    with pool as servers:
        run = SlCai(tmp_path / "run", "", concurrency=2, endpoints=folder).prepare(ROWS)
        process = run.start()
        while (answered := servers.stats()["answered"]) < CALLS * ROWS * 3 // 4 and process.poll() is None:
            if answered:
                servers.leave(1, 1.5)
            time.sleep(0.4)
        code, stats = process.wait(120), servers.stats()
    assert code == 0, run.said()
    assert stats["departures"] >= SERVERS // 2, "half of the servers have left at least"
    assert stats["requests"] > stats["contents"] == CALLS * ROWS, "they left with requests in flight"
    files = run.outputs()
    assert files[REVISIONS].count(b"\n") == ROWS and files[LEFT_OUT] == b""
    assert files == calm.outputs()


def test_a_run_that_starts_before_its_servers_waits_for_them(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "endpoints", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    with standin_pool(elsewhere, *REPLIES, "--endpoints", "2", "--token-seconds", "0.001") as servers:
        run = SlCai(tmp_path / "run", "", concurrency=2, endpoints=folder).prepare(20)
        process = run.start()
        while str(folder) not in run.said() and process.poll() is None:
            time.sleep(0.1)
        assert servers.stats()["requests"] == 0 and "waiting up to 600 s" in run.said()
        for file in elsewhere.iterdir():
            shutil.copy(file, folder)
        assert process.wait(120) == 0, run.said()
        assert servers.stats()["contents"] == CALLS * 20


def test_the_job_array_of_the_docs_announces_its_server_and_withdraws_it(repo_root: Path, tmp_path: Path) -> None:
    page = (repo_root / "docs" / "scaling.rst").read_text(encoding="utf-8")
    (script,) = re.findall(r"code-block:: sh\n\n((?:   .*\n|\n)+)", page)
    folder, programs = tmp_path / "endpoints", tmp_path / "bin"
    programs.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    stand_in = f"exec {sys.executable} -m benchmarks.standin --time-scale 0 --port ${{@: -1}}"
    for name, command in {"vllm": stand_in, "hostname": "echo 127.0.0.1"}.items():
        (programs / name).write_text(f"#!/bin/bash\n{command}\n")
        (programs / name).chmod(0o755)
    job = subprocess.Popen(
        ["bash", "-c", textwrap.dedent(script).replace("/shared/endpoints", str(folder))],
        cwd=tmp_path,
        env=os.environ
        | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(repo_root),
            "SLURM_ARRAY_JOB_ID": "7",
            "SLURM_ARRAY_TASK_ID": str(port - 20000),
        },
    )
    try:
        file = folder / f"7.{port - 20000}"
        while not file.exists():
            assert job.poll() is None
            time.sleep(0.1)
        assert file.read_text() == f"http://127.0.0.1:{port}/v1\n"
        run = SlCai(tmp_path / "run", "", concurrency=4, endpoints=folder).prepare(10)
        assert run.run() == 0, run.said()
        job.send_signal(signal.SIGTERM)
        assert job.wait(30) == 143 and not file.exists()
    finally:
        job.kill()
