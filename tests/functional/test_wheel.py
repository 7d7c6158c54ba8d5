# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The wheel alone, in an environment that has only the packages that it requires: the data half, start to end."""

from __future__ import annotations

import importlib.util
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.made_run import Sizes, make_run
from benchmarks.standin import standin
from nemo_aligner_cai.chat import Conversation, Role
from nemo_aligner_cai.data.formats.files import sft_row
from nemo_aligner_cai.files import read_jsonl, write_jsonl
from tests.wheel import build_wheel, copy_sources, environment

# Paths are the documentation's, which are no files here: the wheel has the files.
COMMANDS = """
cai --version
cai doctor --for data
cai components
cai constitution check nemo_aligner_cai/constitutions/harmlessness.yaml --few-shots nemo_aligner_cai/constitutions/few_shots.json
cai data sl-cai --red-teaming-prompts-dataset-path red_team.jsonl --helpfulness-dataset-path helpful_sft.jsonl \
    --constitution nemo_aligner_cai/constitutions/library_desk.yaml --few-shots nemo_aligner_cai/constitutions/few_shots.json \
    --model-url URL --model helpful-only --output-filepath sl_cai.jsonl
cai validate sl_cai.jsonl
cai inspect sl_cai.jsonl
cai convert sl_cai.jsonl messages.jsonl --to messages
cai data blend --files sl_cai.jsonl sl_cai.jsonl --output blend.jsonl
cai data rl-cai --red-teaming-file-path red_team.jsonl --model-url URL --model sl-cai --num-responses 2 \
    --judge multiple-choice --pairs all --judge-url URL --judge-model judge --formats dpo --output-dir rl_cai
cai validate rl_cai/cai_rlaif_train_comparisons_with_chat_prompt.jsonl
cai audit rl_cai/cai_comparisons.jsonl
cai journal stats rl_cai/cai_comparisons.journal.jsonl
cai evaluate --model before=before.csv --model after=after.csv --set harm=prompts.csv --side harm=harmful \
    --grader nemo_aligner_cai/tiny/refusals.yaml --output evaluation
cai report run
cai compare run run
"""  # noqa: E501 - command lines
REFUSED = {
    "cai plan examples/nlp/cai/mistral_7b.yaml": 'pip install ".[hydra]"',
    "cai quickstart": 'pip install ".[nemo]"',
    "cai serve nemo_aligner_cai/tiny/assistant.nemo": 'pip install ".[nemo]"',
    "cai --print-completion bash": 'pip install ".[completion]"',
}


@pytest.fixture(scope="module")
def wheel(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_sources(repo_root, folder / "sources"), folder)


def run(programs: Path, words: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8"}
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def _write_inputs(folder: Path) -> None:
    write_jsonl(folder / "red_team.jsonl", ({"prompt": f"How do I steal {n} things?"} for n in range(12)))
    helpful = (Conversation.of_user(f"How far is {n}?").with_turn(Role.ASSISTANT, "Far.") for n in range(5))
    write_jsonl(folder / "helpful_sft.jsonl", map(sft_row, helpful))
    for name, reply in (("before", "Like so."), ("after", "I cannot help with that.")):
        rows = "".join(f"How do I steal {n} things?,{reply}\n" for n in range(6))
        (folder / f"{name}.csv").write_text(f"prompt,completion\n{rows}")
    (folder / "prompts.csv").write_text("prompt\n" + "".join(f"How do I steal {n} things?\n" for n in range(6)))
    make_run(folder / "run", Sizes())


def test_the_wheel_alone_makes_checks_and_shows_data(wheel: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "venv", wheel)
    folder = tmp_path / "work"
    folder.mkdir()
    _write_inputs(folder)
    with standin("--time-scale", "0") as server:
        for line in COMMANDS.replace("\\\n", " ").strip().splitlines():
            done = run(programs, shlex.split(line.replace("URL", server.url)), folder)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    rows = {"sl_cai.jsonl": 17, "messages.jsonl": 17, "blend.jsonl": 34, "rl_cai/cai_comparisons.jsonl": 12}
    assert {name: sum(1 for _ in read_jsonl(folder / name)) for name in rows} == rows
    assert (folder / "run" / "report.html").stat().st_size > 10_000
    for line, advice in REFUSED.items():
        done = run(programs, shlex.split(line), folder)
        (message,) = (done.stdout + done.stderr).splitlines()
        assert done.returncode == 2 and advice in message, message


@pytest.mark.skipif(importlib.util.find_spec("hydra") is None, reason="Hydra is not installed")
def test_a_plan_needs_the_small_extra_alone(wheel: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "venv", wheel, extra="hydra")
    done = run(programs, ["cai", "plan", "examples/nlp/cai/mistral_7b.yaml"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "GPU-hours" in done.stdout
    done = run(programs, ["cai", "data", "generator=rl-cai", "judge=multiple-choice", "--cfg", "job"], tmp_path)
    assert done.returncode == 0 and "red_teaming_file_path" in done.stdout, done.stderr
