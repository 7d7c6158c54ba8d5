# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Servers and trainers listen on the loopback interface alone, and accept what they are for (fault C2)."""

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.training.launch import jobs
from tests.functional.conftest import ENV, PACKAGE, TIMEOUT_S
from tests.functional.sockets import listening, open_doors


def outer_address() -> str:
    """An address of this machine that is not a loopback one."""
    found = [
        one.address
        for ones in psutil.net_if_addrs().values()
        for one in ones
        if one.family.name == "AF_INET" and not one.address.startswith("127.")
    ]
    return found[0] if found else pytest.skip("this machine has no other interface than loopback")


def status(url: str, method: str = "GET", body: object = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_c2_the_critic_is_reached_from_this_machine_and_for_its_models_alone(tmp_path: Path, free_port: int) -> None:
    with (tmp_path / "critic.log").open("w") as log:
        command = [sys.executable, "-m", "tests.functional.critic_job", str(free_port), outer_address()]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | ENV)
    job = jobs.Job("critic", tmp_path / "critic.log", process.pid, process.poll)
    try:
        jobs.wait_ready(job, jobs.critic_urls("127.0.0.1", free_port), TIMEOUT_S)
        # The store, a gloo socket of each group, and Triton.
        assert len(listening(process.pid)) >= 4
        assert open_doors(process.pid) == set()
        assert status(f"http://{outer_address()}:{free_port}/v2/health/ready") == 0
        url = f"http://127.0.0.1:{free_port}/v2"
        for path in ("repository/models/critic_train/unload", "repository/models/critic_train/load"):
            assert status(f"{url}/{path}", "POST") == 403
        shared = {"key": "/anything", "offset": 0, "byte_size": 8}
        assert status(f"{url}/systemsharedmemory/region/anything/register", "POST", shared) == 403
        asked = {"inputs": [{"name": "dummy", "shape": [1], "datatype": "INT32", "data": [1]}]}
        assert status(f"{url}/models/critic_save/infer", "POST", asked) == 200
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def test_c2_the_text_server_is_reached_from_this_machine_alone(tmp_path: Path, free_port: int) -> None:
    overrides = [f"gpt_model_file={packaged_files.MODEL}", f"port={free_port}", "hardware=cpu"]
    urls = [f"http://127.0.0.1:{free_port}/health"]
    with jobs.server(f"{PACKAGE}.inference_server", overrides, tmp_path / "log", urls, env=ENV) as server:
        assert len(listening(server.pid)) >= 2
        assert open_doors(server.pid) == set()


def test_c2_torchrun_and_its_processes_are_reached_from_this_machine_alone(tmp_path: Path, free_port: int) -> None:
    command = [
        sys.executable,
        "-m",
        f"{PACKAGE}.launch.local_ranks",
        "--nproc-per-node=2",
        "-m",
        "tests.functional.rank_job",
    ]
    done = subprocess.run(
        [*command, str(tmp_path), str(free_port)],
        env=os.environ | ENV,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    written = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(written) == 2
    assert all(free_port in (port for *_, port in rank["listening"]) and not rank["open"] for rank in written), written


def test_a_process_alone_needs_no_port_of_its_own(free_port: int) -> None:
    code = (
        "import sys, torch; from nemo_aligner_cai.training.launch import loopback; loopback.restrict();"
        "torch.distributed.init_process_group('gloo', init_method=sys.argv[1], rank=0, world_size=1);"
        "torch.distributed.barrier()"
    )
    with socket.create_server(("127.0.0.1", free_port)):
        address = f"tcp://127.0.0.1:{free_port}"
        done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
