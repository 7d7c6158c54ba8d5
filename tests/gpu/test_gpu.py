# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""The trainers and the server on a GPU, in bf16: what must be true of the figures that `measure` finds.

Where there is no GPU all but the last test skip; that one tries the script on the CPU, with the tiny model alone.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.gpu import measure

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device on this machine")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu")
    assert measure.main(["--out", str(folder)]) == 0
    return json.loads((folder / "figures.json").read_text(encoding="utf-8"))


def row(figures: dict[str, Any], model: str, what: str) -> dict[str, Any]:
    (found,) = [row for row in figures["rows"] if (row["model"], row["what"]) == (model, what)]
    return found


@on_gpu
@pytest.mark.parametrize("model", ["tiny", "1b"])
@pytest.mark.parametrize("what", ["SFT", "reward model"])
def test_the_loss_falls_in_bf16(figures: dict[str, Any], model: str, what: str) -> None:
    found = row(figures, model, what)
    assert found["precision"] == "bf16"
    assert all(map(math.isfinite, found["losses"]))
    assert sum(found["losses"][-3:]) < sum(found["losses"][:3])
    assert found["tokens_per_s"] > 0


@on_gpu
@pytest.mark.parametrize("model", ["tiny", "1b"])
def test_ppo_takes_its_steps_in_bf16(figures: dict[str, Any], model: str) -> None:
    found = row(figures, model, "PPO")
    assert (found["precision"], len(found["losses"])) == ("bf16", int(figures["conditions"]["steps"]))
    assert all(map(math.isfinite, found["losses"]))


@on_gpu
@pytest.mark.parametrize("model", ["tiny", "1b"])
def test_the_server_generates(figures: dict[str, Any], model: str) -> None:
    assert row(figures, model, "generation")["tokens_per_s"] > 0


@on_gpu
@pytest.mark.parametrize("stage", ["sft", "reward_model"])
def test_gpu_and_cpu_have_the_same_losses(figures: dict[str, Any], stage: str) -> None:
    (found,) = [one for one in figures["agreements"] if one["stage"] == stage]
    assert len(found["gpu"]) == measure.COMPARED
    assert found["gpu"] == pytest.approx(found["cpu"], abs=1e-3)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert measure.main(["--out", str(tmp_path)]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_script_runs_on_a_cpu(tmp_path: Path) -> None:
    asked = ["--sizes", "tiny", "--parts", "sft", "generation", "--steps", "6", "--hardware", "cpu"]
    command = ["bash", str(Path(__file__).with_name("run.sh")), str(tmp_path), *asked]
    env = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith((tmp_path / "table.txt").read_text(encoding="utf-8"))
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert [one["what"] for one in found["rows"]] == ["SFT", "generation"]
    losses = found["rows"][0]["losses"]
    assert sum(losses[-2:]) < sum(losses[:2])
