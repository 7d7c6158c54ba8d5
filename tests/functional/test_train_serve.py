# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""NeMo's text-generation server on a model of ours."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai.training.launch import jobs
from tests.functional import world
from tests.functional.conftest import ENV, PACKAGE, TIMEOUT_S, Lab, Run


def ask(method: str, url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_the_server_answers_on_all_endpoints_and_stops_on_sigterm(lab: Lab, sft: Run, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    # The tutorial's command, whose GPU settings a machine without one replaces.
    overrides = [
        f"gpt_model_file={sft.nemo('cai_sft')}",
        "pipeline_model_parallel_split_rank=0",
        "server=True",
        "tensor_model_parallel_size=8",
        "pipeline_model_parallel_size=1",
        "trainer.precision=bf16",
        "trainer.devices=8",
        "trainer.num_nodes=1",
        "web_server=False",
        f"port={free_port}",
        "hardware=cpu",
    ]
    log = lab.folder / "server.log"
    with jobs.server(f"{PACKAGE}.inference_server", overrides, log, [f"{url}/health"], env=ENV) as server:
        prompts = [world.prompt("fix", "lamp"), world.prompt("burn", "boat")]
        body = {"sentences": prompts, "tokens_to_generate": 20, "greedy": True, "end_strings": ["<extra_id_1>"]}
        sentences = ask("PUT", f"{url}/generate", body)["sentences"]
        for text, words in zip(sentences, prompts, strict=True):
            assert text.startswith(words)
            assert text.endswith("<extra_id_1>")
            assert text[len(words) :].startswith("i will ")

        chat = {"messages": [{"role": "user", "content": "can you fix the lamp for me ?"}]}
        answer = ask("POST", f"{url}/v1/chat/completions", chat | {"temperature": 0.0, "max_tokens": 20})
        reply = sentences[0][len(prompts[0]) :].removesuffix("\n<extra_id_1>")
        assert answer["choices"][0]["message"]["content"] == reply

        scored = ask("PUT", f"{url}/generate", body | {"tokens_to_generate": 1, "compute_logprob": True})
        assert max(map(max, scored["logprob"])) <= 0.0
    assert server.poll() == 0
    text = log.read_text(encoding="utf-8")
    assert f"ready: {url}" in text
    assert "tensor_model_parallel_size=8 replaced by 1" in text
    assert "fix the lamp" not in text, "what users write does not belong in the log"


def test_a_taken_port_is_said_before_the_model_is_loaded(
    sft: Run, capsys: pytest.CaptureFixture[str], free_port: int
) -> None:
    import socket

    from nemo_aligner_cai.training import inference_server
    from nemo_aligner_cai.training.launch.stage_main import main

    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        arguments = [f"gpt_model_file={sft.nemo('cai_sft')}", f"port={free_port}", "hardware=cpu"]
        assert main(inference_server.STAGE, arguments) == 2
    assert f"port {free_port}" in capsys.readouterr().err


@pytest.mark.parametrize("server", ["cai_inference", "cai_ppo_critic"])
def test_a_server_of_several_processes_may_be_idle_for_days(
    lab: Lab, sft: Run, reward_model: Run, tmp_path: Path, server: str
) -> None:
    """Upstream's wait half an hour for the first one's next request, and then end."""
    critic = [
        f"pretrained_checkpoint.restore_from_path={reward_model.nemo('cai_reward_model')}",
        f"exp_manager.explicit_log_dir={tmp_path / 'critic'}",
    ]
    overrides = critic if server == "cai_ppo_critic" else [f"gpt_model_file={sft.nemo('cai_sft')}", "hardware=cpu"]
    command = [f"--config-name={server}", *overrides, f"+out={tmp_path / 'seconds'}"]
    jobs.finish(jobs.start("tests.functional.patience_job", command, tmp_path / "job.log", ENV), TIMEOUT_S)
    assert float((tmp_path / "seconds").read_text()) == 20 * 24 * 3600
