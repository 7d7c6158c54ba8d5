# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of other configurations than the quickstart's: other prompts, other servers, a trainer that fails, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from nemo_aligner_cai import packaged_files
from nemo_aligner_cai.training.launch.jobs import free_port, server
from tests.functional.small_run import STEP_TIMEOUT_S, Runs, check_files, records, small_config
from tests.run_steps import STEPS


@pytest.mark.parametrize(("step", "sign"), [("2_sl_cai", "*.journal.jsonl"), ("3_sft", "train/metrics.jsonl")])
def test_ctrl_c_stops_servers_and_trainers_and_says_how_to_go_on(
    tmp_path: Path, runs: Runs, step: str, sign: str
) -> None:
    process = runs.start(small_config(tmp_path), tmp_path / "run")
    runs.wait_for(process, tmp_path / "run" / step, sign)
    os.kill(process.pid, signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in printed
    assert "from the unfinished step" in printed
    assert "Traceback" not in printed
    runs.assert_none_left()


def test_a_failing_trainer_ends_the_run_with_its_log(tmp_path: Path, runs: Runs) -> None:
    # Composes, and is refused by the trainer itself: more rows in a batch than there are.
    config = small_config(tmp_path, sft__overrides=["model.data.train_ds.global_batch_size=100000"])
    process = runs.start(config, tmp_path / "run")
    printed, _ = process.communicate(timeout=STEP_TIMEOUT_S)
    assert process.returncode == 1
    assert "global_batch_size" in printed
    assert str(tmp_path / "run" / "3_sft" / "train.log") in printed
    assert "from the unfinished step" in printed
    assert not (tmp_path / "run" / "3_sft" / "step.json").exists()
    runs.assert_none_left()


def test_real_red_team_prompts(shared_data: Path, tmp_path: Path, runs: Runs) -> None:
    config = small_config(
        tmp_path,
        data__red_team=str(shared_data / "hh" / "harmless_base_test.jsonl.gz"),
        data__red_team_turns="first",
        data__red_team_limit=200,
        data__max_prompt_tokens=100,
        sft__seq_length=192,
        reward_model__seq_length=192,
        ppo__seq_length=256,
        rl_cai__margin=0.0,
    )
    output = tmp_path / "run"
    runs.finish(config, output)
    check_files(output)
    done = records(output)
    counts = done["1_data"]["facts"]["balances"]["harmless_base_test.jsonl.gz"]
    assert counts["written"] + sum(counts["left_out"].values()) == counts["rows_in"]
    assert counts["left_out"]["longer than 100 tokens"] > 0
    generated = sum(done[step]["facts"]["generation"]["balance"]["rows_in"] for step in ("2_sl_cai", "4_rl_cai"))
    assert generated == counts["written"]
    assert json.loads((output / "metrics.json").read_text())["judge"]["unknown"] > 0


def test_the_same_model_as_a_file_and_as_an_endpoint_makes_the_same_data(tmp_path: Path, runs: Runs) -> None:
    """Greedy: the two protocols of NeMo's server draw their samples in another order. The second is killed, too."""
    sampling: dict[str, Any] = {"sl_cai__decoding": {"temperature": 0.0, "max_tokens": 40}}
    file, endpoint = tmp_path / "file", tmp_path / "endpoint"
    file.mkdir()
    endpoint.mkdir()
    for source, name in ((packaged_files.MODEL, "model.nemo"), (packaged_files.TOKENIZER, "tokenizer.model")):
        shutil.copy(source, file / name)
    models: dict[str, Any] = {"helpful_only": str(file / "model.nemo"), "constitution": "tiny"}
    config = small_config(file, models=models, **sampling)
    for step in STEPS[:2]:
        runs.finish(config, file / "run", "--step", step)
    port = free_port()
    address = [f"gpt_model_file={packaged_files.MODEL}", "host=127.0.0.1", f"port={port}"]
    health, module = f"http://127.0.0.1:{port}/health", "nemo_aligner_cai.training.inference_server"
    with server(module, address, tmp_path / "server.log", [health]):
        served = {"endpoint": f"http://127.0.0.1:{port}", "model": "assistant", "concurrency": 8}
        models = {"helpful_only": served, "base": "tiny", "constitution": "tiny"}
        config = small_config(endpoint, models=models, **sampling)
        runs.finish(config, endpoint / "run", "--step", STEPS[0])
        process = runs.start(config, endpoint / "run", "--step", STEPS[1])
        runs.wait_for(process, endpoint / "run" / STEPS[1], "*.journal.jsonl")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        runs.finish(config, endpoint / "run", "--step", STEPS[1])
    for name in ("1_data/sl_prompts.jsonl", "2_sl_cai/revisions.jsonl", "2_sl_cai/train.jsonl"):
        assert (file / "run" / name).read_bytes() == (endpoint / "run" / name).read_bytes(), name
