# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""vLLM servers of a step: their command lines, readiness, failures and end, against a fake ``vllm`` program."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.chat import Conversation
from nemo_aligner_cai.errors import CaiError, UsageError
from nemo_aligner_cai.models.base import Completion, Request, Sampling
from nemo_aligner_cai.pipeline.sections.answers import Answers
from nemo_aligner_cai.pipeline.sections.serve import VllmServer
from nemo_aligner_cai.pipeline.serving import vllm
from nemo_aligner_cai.pipeline.serving.servers import ask
from nemo_aligner_cai.pipeline.serving.vllm import served_vllm
from nemo_aligner_cai.pipeline.steps.answers import ask_all
from nemo_aligner_cai.training.launch import jobs
from tests.unit.fake_vllm import write_fake_vllm

IDENTITY = "0123456789abcdef" * 4


@pytest.fixture
def executable(tmp_path: Path) -> str:
    return write_fake_vllm(tmp_path / "fake_vllm")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    write(folder / "config.json", {"max_position_embeddings": 128})
    write(folder / "tokenizer.json", {})
    write(folder / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    return folder


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def answers(model: Path, log: Path, settings: VllmServer, questions: int = 1) -> list[str]:
    """Replies to equal questions of different records."""

    async def work() -> list[str]:
        requests = [Request(Conversation.of_user(f"{number} ?"), Sampling(seed=1)) for number in range(questions)]
        found: list[Completion] = [await client.complete(request) for request in requests]
        return [completion.text for completion in found]

    with served_vllm(model, log, settings, identity=IDENTITY) as client:
        assert client.identity["model"] == IDENTITY[:16]
        assert client.identity == vllm.without_server(model, identity=IDENTITY).identity
        return ask(work(), client)


def started(log: Path) -> dict[str, Any]:
    return json.loads(log.read_text().splitlines()[0])


def test_a_server_gets_its_settings_and_ends_with_the_block(tmp_path: Path, executable: str, model: Path) -> None:
    settings = VllmServer(executable=executable, dtype="float32", max_model_len=64, arguments=("--enforce-eager",))
    log = tmp_path / "step" / "server.log"
    (answer,) = answers(model, log, settings)
    port, name, stop = answer.split()
    assert (name, stop) == (IDENTITY[:16], "None")
    words = started(log)["words"]
    assert words[:2] == ["serve", str(model)]
    assert words[-1] == "--enforce-eager"
    assert (
        dict(zip(words[2:-1:2], words[3:-1:2], strict=True)).items()
        >= {
            "--port": port,
            "--host": "127.0.0.1",
            "--dtype": "float32",
            "--max-model-len": "64",
            "--tensor-parallel-size": "1",
        }.items()
    )
    assert started(log)["offline"] == "1"
    assert not jobs.answers(f"http://127.0.0.1:{port}/health")


def test_replicas_have_own_ports_logs_and_gpus(tmp_path: Path, executable: str, model: Path) -> None:
    settings = VllmServer(executable=executable, replicas=2, tensor_parallel=2, gpus=(4, 5, 6, 7))
    found = answers(model, tmp_path / "server.log", settings, questions=12)
    assert len({answer.split()[0] for answer in found}) == 2
    logs = [started(tmp_path / name) for name in ("server.log", "server.1.log")]
    assert [log["gpus"] for log in logs] == ["4,5", "6,7"]


def test_stop_strings_of_a_converted_model_are_sent(tmp_path: Path, executable: str, model: Path) -> None:
    write(model / "generation_config.json", {"eos_token_id": 2, "stop_strings": ["<extra_id_1>"]})
    (answer,) = answers(model, tmp_path / "server.log", VllmServer(executable=executable))
    assert answer.endswith("['<extra_id_1>']")


def test_a_server_that_ends_shows_the_end_of_its_log(tmp_path: Path, executable: str, model: Path) -> None:
    settings = VllmServer(executable=executable, arguments=("--fail",))
    with pytest.raises(CaiError, match=r"(?s)vllm ended with exit code 1 .*CUDA out of memory"):
        answers(model, tmp_path / "server.log", settings)


def test_a_server_that_ends_while_it_is_asked_ends_the_work(tmp_path: Path, executable: str, model: Path) -> None:
    """The requests are repeated then: connections are refused, and each call asks whether the server has TLS."""
    section = Answers(prompts=tuple(f"{number} ?" for number in range(20)), decoding=Sampling(temperature=0.5))
    log = tmp_path / "server.log"
    with served_vllm(
        model, log, VllmServer(executable=executable, arguments=("--slow",)), identity=IDENTITY
    ) as client:
        (server,) = client.servers
        timer = threading.Timer(0.5, lambda: os.kill(server.pid, signal.SIGKILL))
        timer.start()
        started_at = time.monotonic()
        with pytest.raises(CaiError, match="exit code -9"):
            ask(ask_all(client, section, tmp_path / "a.journal.jsonl", seed=1), client)
    assert time.monotonic() - started_at < 30
    timer.join()


def test_a_port_that_another_process_has_taken_is_an_error(
    tmp_path: Path, executable: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, settings = jobs.free_port(), VllmServer(executable=executable)
    monkeypatch.setattr(jobs, "free_port", lambda: port)
    with (
        served_vllm(model, tmp_path / "first.log", settings, identity="another" * 4),
        pytest.raises(CaiError, match=rf"(?s)port {port}.*second\.log"),
    ):
        answers(model, tmp_path / "second.log", settings)


def test_a_missing_program_is_named_with_the_setting() -> None:
    with pytest.raises(UsageError, match=r"'no-such-vllm'.*executable"):
        vllm.check_executable(VllmServer(executable="no-such-vllm"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_an_incomplete_folder_is_refused_before_a_server_is_started(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(UsageError) as caught:
        vllm.check_folder(model, VllmServer())
    assert str(model) in str(caught.value)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_length_beyond_the_context_is_refused(model: Path) -> None:
    vllm.check_folder(model, VllmServer(max_model_len=128))
    with pytest.raises(UsageError, match=r"max_model_len=129 .*128"):
        vllm.check_folder(model, VllmServer(max_model_len=129))


@pytest.mark.parametrize(
    "values", [{"replicas": 2, "gpus": (0,)}, {"gpus": (0, 1)}, {"tensor_parallel": 2, "replicas": 2}]
)
def test_gpus_must_fit_the_replicas(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="gpus"):
        VllmServer(**values)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_program_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    code = (
        "import pathlib, time; from nemo_aligner_cai.training.launch import jobs; "
        f"log = pathlib.Path({str(tmp_path / 'log')!r}); "
        "print(jobs.start_command('sleep', ['sleep', '600'], log).pid, flush=True); "
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        command = Path(f"/proc/{pid}/cmdline")
        wait_for(lambda: command.read_bytes().startswith(b"sleep"))
        starter.send_signal(signal.SIGKILL)
    wait_for(lambda: not command.exists() or not command.read_bytes())


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_program_that_cannot_be_executed_says_so(tmp_path: Path) -> None:
    job = jobs.start_command("missing", [str(tmp_path / "missing")], tmp_path / "log")
    with pytest.raises(CaiError, match=r"(?s)exit code 127.*No such file"):
        jobs.finish(job)
    assert os.path.lexists(tmp_path / "log")
