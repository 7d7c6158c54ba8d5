# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Starting, watching and ending jobs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nemo_aligner_cai.errors import CaiError
from nemo_aligner_cai.training.launch import jobs, quiet
from tests.functional.conftest import ENV, PACKAGE, Lab, Run
from tests.functional.processes import kill

STARTER = """
import sys, time
from pathlib import Path
from nemo_aligner_cai.training.launch import jobs

if __name__ == "__main__":
    model, port, log = sys.argv[1:]
    jobs.start("nemo_aligner_cai.training.inference_server", [f"gpt_model_file={model}", f"port={port}"], Path(log))
    time.sleep(600)
"""

RANK = """
import time
from omegaconf import OmegaConf
from nemo_aligner_cai.training.launch import stage_main

def wait(cfg):
    print("waiting", flush=True)
    time.sleep(600)

stage = stage_main.Stage("none", check=wait, work=wait)
stage_main.execute(stage, stage_main.Arguments("none", [], []), OmegaConf.create({"trainer": {"devices": 2}}))
"""
FIRST_RANK = """
import os, subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=os.environ | {"LOCAL_RANK": "1"})
print(other.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("fork", [True, False])
def test_a_failing_job_is_an_error_with_its_last_lines(lab: Lab, tmp_path: Path, fork: bool) -> None:
    log = tmp_path / "job.log"
    root = str(Path(__file__).resolve().parents[2])
    job = jobs.start(f"{PACKAGE}.sft", ["model.restore_from_path=no.nemo"], log, ENV | {"PYTHONPATH": root}, fork=fork)
    with pytest.raises(CaiError, match=r"exit code 2\n--- end of .*\n(.*\n)*cai: cai_sft: no value for "):
        jobs.finish(job, 120)


def test_a_server_that_dies_is_said_at_once(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    start = time.monotonic()
    with (
        pytest.raises(CaiError, match="ended with exit code 2 before it was ready"),
        jobs.server(f"{PACKAGE}.inference_server", ["gpt_model_file=no.nemo"], log, ["http://127.0.0.1:9/"], env=ENV),
    ):
        pytest.fail("it was never ready")
    assert time.monotonic() - start < 60


def test_no_rank_outlives_the_first_one_that_has_started_it() -> None:
    """Lightning starts the other processes of a job on one machine, and ends none of them."""
    first = subprocess.Popen([sys.executable, "-c", FIRST_RANK, RANK], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    other = psutil.Process(int(first.stdout.readline()))
    try:
        assert first.stdout.readline() == "waiting\n"
        first.kill()
        assert psutil.wait_procs([other], timeout=30)[0] == [other]
    finally:
        first.kill()
        first.wait()
        kill([other])


def test_no_server_outlives_a_killed_starter(lab: Lab, sft: Run, free_port: int, tmp_path: Path) -> None:
    script = tmp_path / "starter.py"
    script.write_text(STARTER, encoding="utf-8")
    root = str(Path(__file__).resolve().parents[2])
    url = f"http://127.0.0.1:{free_port}/health"
    command = [sys.executable, str(script), str(sft.nemo("cai_sft")), str(free_port), str(tmp_path / "server.log")]
    starter = subprocess.Popen(command, env=os.environ | ENV | {"PYTHONPATH": root})
    try:
        deadline = time.monotonic() + 120
        while not jobs.answers(url):
            assert time.monotonic() < deadline, quiet.tail(tmp_path / "server.log")
            time.sleep(0.5)
    finally:
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    deadline = time.monotonic() + 30
    while jobs.answers(url):
        assert time.monotonic() < deadline, "the server lives on"
        time.sleep(0.5)
