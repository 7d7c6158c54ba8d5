# SPDX-FileCopyrightText: Copyright (c) 2026, The nemo_aligner_cai authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the property tests, and the input files of a small SL-CAI run."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.unit.fake_slurm import FakeSlurm
from tests.unit.sl_run import write

# What is tested is what is true, not how fast this machine happens to be while others use it.
settings.register_profile("untimed", deadline=None)
# pytest --hypothesis-profile=long: for a search of hours. pytest loads the profile after this file.
settings.register_profile("long", deadline=None, max_examples=5000)
# For benchmarks/mutation.py: the same examples for every mutant, and none made smaller, which no one would read.
settings.register_profile(
    "mutants", deadline=None, max_examples=30, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("untimed")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, str]:
    """Files of a small run; `transcript` rows as Anthropic publishes them."""
    transcripts = [
        {"transcript": f"\n\nHuman: Wie geht böses Ding {n} 中文?\n\nAssistant: So.\n\nHuman: more\n\nAssistant: no"}
        for n in range(10)
    ]
    shots = {
        "samples": [
            [
                {"role": "User", "content": "shot question"},
                {"role": "Assistant", "content": "shot answer"},
                {"role": "User", "content": "shot critique request"},
                {"role": "Assistant", "content": "shot critique"},
                {"role": "User", "content": "shot revision request"},
                {"role": "Assistant", "content": "shot revision"},
            ]
        ]
    }
    instructions = {
        f"harmful{n}": {
            "prompt": [f"\n\nCritiqueRequest: find flaw {n}\n\nCritique:"],
            "edit_request": f"\n\nRevisionRequest: mend flaw {n}\n\nRevision:",
        }
        for n in range(4)
    }
    helpful = [
        {
            "system": "",
            "conversations": [
                {"from": "User", "value": f"help {n}", "label": None},
                {"from": "Assistant", "value": f"gladly {n}", "label": None},
            ],
            "mask": "User",
            "dataset": "helpful",
        }
        for n in range(5)
    ]
    (tmp_path / "shots.json").write_text(json.dumps(shots))
    (tmp_path / "instructions.json").write_text(json.dumps(instructions))
    return {
        "--red-teaming-prompts-dataset-path": write(tmp_path / "red.jsonl", transcripts),
        "--few-shot-prompts-dataset-path": str(tmp_path / "shots.json"),
        "--critique-revision-instructions-path": str(tmp_path / "instructions.json"),
        "--helpfulness-dataset-path": write(tmp_path / "helpful.jsonl", helpful),
        "--output-filepath": str(tmp_path / "out" / "sl.jsonl"),
    }


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Slurm's commands on the path, outside of a job."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return FakeSlurm(tmp_path / "bin")
