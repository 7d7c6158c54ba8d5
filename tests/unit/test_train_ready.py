# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Readiness of servers, and of those that another process has started."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the training extra is not installed")

from nemo_aligner_cai.chat import NEMO_CHAT
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.training import ppo_actor
from nemo_aligner_cai.training.launch import jobs


class Answer(BaseHTTPRequestHandler):
    """200 for /ready, something that is not HTTP for the rest."""

    def do_GET(self) -> None:
        if self.path.endswith("/ready"):
            self.send_response(200)
            self.end_headers()
        elif self.path == "/v2/models/critic_infer":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"name": "critic_infer", "outputs": [{"name": "values", "datatype": "FP32"}]}')
        else:
            self.wfile.write(b"no HTTP\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def job(code: int | None) -> jobs.Job:
    return jobs.Job("a.server", Path("no.log"), 1, lambda: code)


def test_readiness_is_not_asked_of_a_proxy(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert jobs.answers(f"{address}/ready")


def test_what_is_no_http_is_not_ready(address: str) -> None:
    assert not jobs.answers(f"{address}/other")
    assert "no HTTP" in str(jobs.unready(f"{address}/other", 2))
    assert not jobs.answers("http://127.0.0.1:port/ready")


def test_a_server_that_runs_and_answers_is_ready(address: str) -> None:
    jobs.wait_ready(job(None), [f"{address}/ready"], 5)


def test_somebody_elses_server_is_not_the_jobs(address: str) -> None:
    with pytest.raises(CaiError, match="exit code 2 before it was ready; another process's server answers"):
        jobs.wait_ready(job(2), [f"{address}/ready"], 5)


def test_what_a_model_gives(address: str) -> None:
    assert jobs.outputs(f"{address}/v2/models/critic_infer", 2) == {"values"}
    assert jobs.outputs(f"{address}/v2/models/other", 2) == set()
    assert jobs.outputs("http://127.0.0.1:9/", 2) == set()


def test_an_actor_asks_all_the_servers_that_it_will_need(address: str) -> None:
    omegaconf = pytest.importorskip("omegaconf", reason="the training extra is not installed")
    port = int(address.rpartition(":")[2])
    server = {"ip": "127.0.0.1", "port": port}
    remote = {"critic": server | {"name": {"infer": "critic_infer"}}, "reward_model": server | {"name": "rm"}}
    cfg = omegaconf.OmegaConf.create({"remote_critic_rm": remote | {"combine_rm_and_critic_server": True}})
    with pytest.raises(UsageError, match=r"^remote_critic_rm\.combine_rm_and_critic_server=True, "):
        ppo_actor._check_critic(cfg)
    cfg.remote_critic_rm.combine_rm_and_critic_server = False
    ppo_actor._check_critic(cfg)
    cfg.remote_critic_rm.reward_model.port = 9
    with pytest.raises(UsageError, match=r"^remote_critic_rm\.reward_model: .*127\.0\.0"):
        ppo_actor._check_critic(cfg)


def test_a_free_port_is_one_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = jobs.free_port()
        monkeypatch.setattr(jobs, "_PORTS", [port, port, port, free])
        assert {jobs.free_port() for _ in range(20)} == {free}


def test_b9_work_ends_when_the_server_that_it_asks_has_ended(tmp_path: Path) -> None:
    from nemo_aligner_cai.pipeline.serving import servers as serving

    codes: list[int | None] = [None, -9]
    log = tmp_path / "server.log"
    log.write_text("out of memory\n")
    server = jobs.Job("a.server", log, 1, lambda: codes.pop(0) if len(codes) > 1 else codes[0])
    client = serving.ServedClient(1, server, model="m", batch_size=1, template=NEMO_CHAT)
    stopped: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            stopped.append("work")

    with pytest.raises(CaiError, match=r"(?s)^a\.server ended with exit code -9 .*out of memory"):
        serving.ask(wait(), client)
    assert stopped == ["work"]

    async def done() -> int:
        return 7

    codes[:] = [None]
    assert serving.ask(done(), client) == 7


def test_b9_an_actor_is_stopped_when_its_critic_has_ended(tmp_path: Path) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    actor = jobs.Job("an.actor", tmp_path / "actor.log", sleeper.pid, sleeper.poll)
    with pytest.raises(CaiError, match=r"^a\.server ended with exit code -9"):
        jobs.finish(actor, servers=[job(None), job(-9)])
    assert sleeper.wait(timeout=10) == -signal.SIGTERM
