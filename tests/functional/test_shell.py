# Copyright (c) 2026, The nemo_aligner_cai authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The shell scripts of this folder on a CPU, as CI of NeMo-Aligner's kind runs them on GPUs in the container."""

import os
import subprocess
import sys
from pathlib import Path

from tests.functional.conftest import ENV, TIMEOUT_S

HERE = Path(__file__).resolve().parent


def run(script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(script), *arguments]
    whole = {**os.environ, **ENV, "PYTHON": sys.executable, "CAI_DEVICE": "cpu", **env}
    return subprocess.run(command, env=whole, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_every_case_passes(tmp_path: Path) -> None:
    done = run(HERE / "run_all.sh", ALIGNER_CI_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    cases = sorted(path.name for path in (HERE / "test_cases").iterdir())
    assert cases == ["rm-tiny", "sft-tiny"]
    for case in cases:
        assert f"passed {case} in " in done.stdout
        assert f"ok {case} falls:train_loss: " in done.stdout
    assert "2 passed, 0 failed" in done.stdout
    # The same results against facts that do not hold: each is named, and ends the check.
    checked = [sys.executable, str(HERE / "check.py"), str(tmp_path / "results" / "sft-tiny")]
    for fact in ("steps:train_loss=7", "finite:no_such_metric", "nemo:no_such_model"):
        failed = subprocess.run([*checked, fact, "nemo:cai_sft"], capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        assert failed.stdout.startswith(f"FAILED sft-tiny {fact}: ") and failed.stdout.count("\n") == 1


def test_a_trainer_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    files = {
        "PRETRAINED_CHECKPOINT_NEMO_FILE": str(tmp_path / "no.nemo"),
        "TRAIN_DATA_PATH": str(tmp_path / "no.jsonl"),
    }
    done = run(HERE / "sft.sh", ALIGNER_CI_DIR=str(tmp_path), NAME="absent", **files)
    assert done.returncode == 1
    assert "FAILED absent: the trainer ended with an error" in done.stderr
    assert "no.nemo" in done.stderr
